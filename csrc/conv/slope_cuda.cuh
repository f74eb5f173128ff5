// What the gradients of a convolution read.
#pragma once

#include "../common/cuda_types.cuh"

// dy, where a fused ReLU let something through.
struct Slope {
    const real* dy;
    const unsigned char* positive;  // or null
    __device__ real operator()(offset_t at) const { return positive && !positive[at] ? real(0) : dy[at]; }
};
