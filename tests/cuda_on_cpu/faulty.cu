// Kernels with one mistake each. The line that the checker must name carries its finding in a comment.

extern "C" __global__ void __launch_bounds__(128) read_past_the_end(const float* x, float* y, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    y[i] = x[i] + static_cast<float>(n);  // found: out of bounds
}

extern "C" __global__ void __launch_bounds__(128) write_past_the_end(const float* x, float* y, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    y[i] = i < n ? x[i] : 0.f;  // found: out of bounds
}

extern "C" __global__ void __launch_bounds__(128) read_before_the_start(const float* x, float* y, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = x[i - 1];  // found: out of bounds
}

extern "C" __global__ void __launch_bounds__(128) past_dynamic_shared(const float* x, float* y, int n) {
    extern __shared__ float dynamic_shared[];
    const int i = threadIdx.x;
    dynamic_shared[i + 1] = x[i];  // found: out of bounds
    __syncthreads();
    if (i < n && i > 0) y[i] = dynamic_shared[i];
}

extern "C" __global__ void __launch_bounds__(128) past_a_static_row(const float* x, float* y, int n) {
    __shared__ float rows[4][32];
    const int lane = threadIdx.x % 32, row = threadIdx.x / 32;
    rows[row][(lane + n) % 33] = x[threadIdx.x];  // found: index out of bounds
    __syncthreads();
    if (lane == 0) y[row] = rows[row][1];
}

extern "C" __global__ void __launch_bounds__(128) shared_never_written(const float* x, float* y, int n) {
    __shared__ float values[128];
    const int i = threadIdx.x;
    if (i < n) values[i] = x[i];
    __syncthreads();
    y[i] = values[i];  // found: uninitialised
}

extern "C" __global__ void __launch_bounds__(128) global_never_written(float* scratch, float* y, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = scratch[i];  // found: uninitialised
}

extern "C" __global__ void __launch_bounds__(128) no_barrier(const float* x, float* y, int n) {
    __shared__ float values[128];
    const int i = threadIdx.x;
    values[i] = x[i];
    y[i] = values[127 - i];  // found: race, read after write
}

extern "C" __global__ void __launch_bounds__(128) tile_used_again(const float* x, float* y, int n) {
    __shared__ float values[128];
    const int i = threadIdx.x;
    float sum = 0.f;
    for (int step = 0; step < 2; step++) {
        values[i] = x[i] + step;  // found: race, write after read
        __syncthreads();
        sum += values[127 - i];
    }
    y[i] = sum;
}

extern "C" __global__ void __launch_bounds__(128) no_warp_barrier(const float* x, float* y, int n) {
    __shared__ float values[128];
    const int i = threadIdx.x;
    values[i] = x[i];
    y[i] = values[i ^ 1];  // found: race, read after write
}

extern "C" __global__ void __launch_bounds__(128) blocks_meet(const float* x, float* y, int n) {
    y[threadIdx.x] = x[threadIdx.x] + blockIdx.x;  // found: race, write after write
}

extern "C" __global__ void __launch_bounds__(128) atomic_and_plain(int* count, float* y, int n) {
    atomicAdd(&count[0], 1);  // found: race, write after read
    if (threadIdx.x == 100) y[0] = count[0];
}

extern "C" __global__ void __launch_bounds__(128) barrier_for_some(const float* x, float* y, int n) {
    if (threadIdx.x < 64) __syncthreads();  // found: divergent barrier
    y[threadIdx.x] = x[threadIdx.x];
}

extern "C" __global__ void __launch_bounds__(128) two_barriers(const float* x, float* y, int n) {
    if (threadIdx.x < 64) __syncthreads();  // found: divergent barrier
    else __syncthreads();
    y[threadIdx.x] = x[threadIdx.x];
}

extern "C" __global__ void __launch_bounds__(128) shuffle_for_some(const float* x, float* y, int n) {
    float value = x[threadIdx.x];
    if (threadIdx.x % 32 < 20) value += __shfl_down_sync(0xffffffffu, value, 1);  // found: divergent warp
    y[threadIdx.x] = value;
}

extern "C" __global__ void __launch_bounds__(128) shuffle_from_outside(const float* x, float* y, int n) {
    float value = x[threadIdx.x];
    if (threadIdx.x % 32 < 16) value += __shfl_xor_sync(0x0000ffffu, value, 16);  // found: shuffle
    y[threadIdx.x] = value;
}

extern "C" __global__ void __launch_bounds__(128) mma_for_some(const float* x, float* y, int n) {
    const unsigned a[4] = {}, b[2] = {};
    float d[4] = {x[threadIdx.x]};
    if (threadIdx.x % 32 < 20) mma_tf32(d, a, b);  // found: divergent warp
    y[threadIdx.x] = d[0];
}

extern "C" __global__ void __launch_bounds__(128) mask_without_itself(const float* x, float* y, int n) {
    __syncwarp(threadIdx.x == 127 ? 0x7fffffffu : ~0u);  // found: mask
    y[threadIdx.x] = x[threadIdx.x];
}

extern "C" __global__ void __launch_bounds__(128) misaligned_vector(const float* x, float* y, int n) {
    struct __align__(16) Four {
        float v[4];
    };
    if (threadIdx.x == 0) y[0] = reinterpret_cast<const Four*>(x + 1)->v[0];  // found: misaligned
}

extern "C" __global__ void __launch_bounds__(128) misaligned_whole_vector(const float* x, float* y, int n) {
    struct __align__(16) Four {
        float v[4];
    };
    if (threadIdx.x > 0) return;
    *reinterpret_cast<Four*>(y) = *reinterpret_cast<const Four*>(x + 1);  // found: misaligned
}

extern "C" __global__ void __launch_bounds__(128) division_by_zero(const float* x, float* y, int n) {
    y[threadIdx.x] = x[threadIdx.x] + 7 / (static_cast<int>(threadIdx.x) - n);  // found: division by zero
}

extern "C" __global__ void __launch_bounds__(128) integer_overflow(const float* x, float* y, int n) {
    const int far = n * 30000000;  // found: integer overflow
    y[threadIdx.x] = x[threadIdx.x] + static_cast<float>(far);
}
