// Correct kernels that come close to what the checker reports.

extern "C" __global__ void __launch_bounds__(128) histogram(const float* x, int* counts, int n) {
    __shared__ int local[4];
    if (threadIdx.x < 4) local[threadIdx.x] = 0;
    __syncthreads();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        atomicAdd(&local[static_cast<int>(x[i]) & 3], 1);
    __syncthreads();
    if (threadIdx.x < 4) atomicAdd(&counts[threadIdx.x], local[threadIdx.x]);
}

// Neighbours exchange through shared memory; lanes of a warp are ordered by __syncwarp alone.
extern "C" __global__ void __launch_bounds__(128) neighbours(const float* x, float* y, int n) {
    extern __shared__ float dynamic_shared[];
    const int i = threadIdx.x;
    for (int step = 0; step < 3; step++) {
        dynamic_shared[i] = x[i] + step;
        __syncwarp();
        y[i] = dynamic_shared[i ^ 1];
        __syncwarp();
    }
}

// Each half of a warp sums on its own.
extern "C" __global__ void __launch_bounds__(128) half_warps(const double* x, double* y, int n) {
    const unsigned mask = threadIdx.x % 32 < 16 ? 0x0000ffffu : 0xffff0000u;
    double sum = x[threadIdx.x];
    for (int lanes = 8; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(mask, sum, lanes, 16);
    y[threadIdx.x] = sum;
}

// Bytes next to each other have writers of their own.
extern "C" __global__ void __launch_bounds__(128) bytes(const unsigned char* x, unsigned char* y, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = static_cast<unsigned char>(x[i] + 1);
}

extern "C" __global__ void __launch_bounds__(128) votes(const float* x, int* y, int n) {
    const int i = threadIdx.x;
    const unsigned positive = __ballot_sync(~0u, x[i] > 0.f);
    y[i] = __popc(positive) + 100 * __any_sync(~0u, x[i] > 0.f) + 1000 * __all_sync(~0u, x[i] > 0.f);
}

// Sixteen bytes at a time.
extern "C" __global__ void __launch_bounds__(128) vectors(const float* x, float* y, int n) {
    struct __align__(16) Four {
        float v[4];
    };
    __shared__ Four fours[32];
    const int i = threadIdx.x;
    if (i < n / 4) fours[i] = reinterpret_cast<const Four*>(x)[i];
    __syncthreads();
    if (i < n / 4) reinterpret_cast<Four*>(y)[i] = fours[n / 4 - 1 - i];
}

// 16 x 16 times 16 x 8 by one warp, placed as the PTX manual has it: in tf32 where n is 1, in bf16 where it is 2.
extern "C" __global__ void __launch_bounds__(128) products(const float* x, float* y, int n) {
    const float *a = x, *b = x + 256;
    const int g = threadIdx.x / 4, t = threadIdx.x % 4;
    if (threadIdx.x >= 32) return;
    float d[4] = {};
    for (int k = 0; n == 1 && k < 16; k += 8) {
        unsigned of_a[4], of_b[2];
        for (int i = 0; i < 4; i++) of_a[i] = rounded_to_tf32(a[(g + i % 2 * 8) * 16 + k + t + i / 2 * 4]);
        for (int i = 0; i < 2; i++) of_b[i] = rounded_to_tf32(b[(k + t + 4 * i) * 8 + g]);
        mma_tf32(d, of_a, of_b);
    }
    if (n == 2) {
        unsigned of_a[4], of_b[2];
        for (int i = 0; i < 4; i++) {
            const float* pair = a + (g + i % 2 * 8) * 16 + 2 * t + i / 2 * 8;
            of_a[i] = rounded_to_bf16(pair[0], pair[1]);
        }
        for (int i = 0; i < 2; i++)
            of_b[i] = rounded_to_bf16(b[(2 * t + 8 * i) * 8 + g], b[(2 * t + 1 + 8 * i) * 8 + g]);
        mma_bf16(d, of_a, of_b);
    }
    for (int i = 0; i < 4; i++) y[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = d[i];
}
