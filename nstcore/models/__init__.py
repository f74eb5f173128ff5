"""Networks, pretrained or to be trained."""

from __future__ import annotations

from nstcore.models.alexnet import AlexNet, alexnet
from nstcore.models.embedding import EmbeddingNet, embedding_net
from nstcore.models.face_encoder import FaceEncoder, face_encoder
from nstcore.models.mtcnn import MTCNN, mtcnn
from nstcore.models.vgg import VGG, vgg16, vgg19

__all__ = [
    "MTCNN", "VGG", "AlexNet", "EmbeddingNet", "FaceEncoder", "alexnet", "embedding_net", "face_encoder", "mtcnn",
    "vgg16", "vgg19",
]  # fmt: skip
