// What every CUDA file begins with. A file is compiled once for each element type, -DNST_REAL=float or double; nothing
// but the language itself is included, so that nvcc, NVRTC and the emulator of the tests take the same text.
#pragma once

#ifndef NST_REAL
#define NST_REAL float
#endif

// Not 0: matrix products of floats on tensor cores, see cuda_tensor_cores.cuh.
#ifndef NST_TENSOR_CORES
#define NST_TENSOR_CORES 0
#endif

typedef NST_REAL real;
typedef long long offset_t;  // of an element in an array

// A vector of shared memory.
struct __align__(16) Four {
    real v[4];
};

constexpr int lanes = 32;  // of a warp
constexpr unsigned whole_warp = 0xffffffffu;
// Threads of a block that handles one element a thread, and how many blocks share a multiprocessor at least: 64
// registers.
constexpr int element_threads = 256, element_blocks = 4;

// Which element of the grid this thread handles.
__device__ __forceinline__ offset_t element_index() {
    return static_cast<offset_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
