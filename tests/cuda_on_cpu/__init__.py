"""Runs nstcore's CUDA kernels on the processor, with or without checks; `cupy_stand_in` is the face of it."""
