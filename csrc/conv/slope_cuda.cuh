// What the gradients of a convolution read.
#pragma once

#include "../common/cuda_types.cuh"

// dy, where a fused ReLU let something through.
struct Slope {
    const real* dy;
    const unsigned char* positive;  // or null
    __device__ real operator()(offset_t at) const {
        if (positive && !positive[at]) return 0;
        return dy[at];
    }
};
