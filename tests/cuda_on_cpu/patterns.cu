// Accesses whose sectors and passes are known: the comments say what an access of a warp takes, and the least that it
// could. A block of 64 threads.

struct __align__(16) Vector {
    float v[4];
};
struct Pair {
    float value;
    int place;
};

extern "C" __global__ void __launch_bounds__(64) neighbours(const float* x, float* y) {
    const int i = static_cast<int>(threadIdx.x);
    const float v = x[i];  // load global 4: 4 / 4
    y[i] = v;              // store global 4: 4 / 4
}

extern "C" __global__ void __launch_bounds__(64) strides(const float* x, float* y) {
    const int i = static_cast<int>(threadIdx.x);
    float v = x[2 * i];  // load global 4: 8 / 4
    v += x[32 * i];      // load global 4: 32 / 4
    y[4 * i] = v;        // store global 4: 16 / 4
}

extern "C" __global__ void __launch_bounds__(64) shifted(const float* x, float* y) {
    const int i = static_cast<int>(threadIdx.x);
    const float v = x[i + 1];  // load global 4: 5 / 4
    y[i] = v;
}

extern "C" __global__ void __launch_bounds__(64) one_for_all(const float* x, float* y) {
    const int i = static_cast<int>(threadIdx.x);
    float v = x[7];  // load global 4: 1 / 1
    v += x[i / 16];  // load global 4: 1 / 1
    y[i] = v;
}

extern "C" __global__ void __launch_bounds__(64) vectors(const float* x, float* y) {
    const int i = static_cast<int>(threadIdx.x);
    const Vector v = reinterpret_cast<const Vector*>(x)[i];  // load global 16: 16 / 16
    reinterpret_cast<Vector*>(y)[2 * i] = v;                 // store global 16: 32 / 16
}

extern "C" __global__ void __launch_bounds__(64) bytes(const unsigned char* x, unsigned char* y) {
    const int i = static_cast<int>(threadIdx.x);
    const unsigned char v = x[i];  // load global 1: 1 / 1
    y[4 * i] = v;                  // store global 1: 4 / 1
}

extern "C" __global__ void __launch_bounds__(64) banks(const float* x, float* y) {
    __shared__ float kept[64 * 33];
    const int i = static_cast<int>(threadIdx.x);
    kept[i] = x[i];  // store shared 4: 1 / 1
    __syncthreads();
    float v = kept[i / 32];  // load shared 4: 1 / 1
    __syncthreads();
    kept[2 * i] = v;   // store shared 4: 2 / 1
    kept[32 * i] = v;  // store shared 4: 32 / 1
    kept[33 * i] = v;  // store shared 4: 1 / 1
    __syncthreads();
    v += kept[i % 32 / 4 * 32];  // load shared 4: 8 / 1
    y[i] = v;
}

extern "C" __global__ void __launch_bounds__(64) wide_banks(const float* x, float* y) {
    __shared__ Vector kept[64 * 5];
    __shared__ double twice[64 * 2];
    const int i = static_cast<int>(threadIdx.x);
    const Vector v = {{x[i], 0, 0, 0}};
    kept[i] = v;                              // store shared 16: 4 / 4
    kept[5 * i] = v;                          // store shared 16: 4 / 4
    kept[2 * i] = v;                          // store shared 16: 8 / 4
    twice[i] = x[i];                          // store shared 8: 2 / 2
    twice[2 * i] = x[i];                      // store shared 8: 4 / 2
    y[i] = static_cast<float>(twice[i % 2]);  // load shared 8: 2 / 2
}

// A structure aligned to 4 bytes moves as words, one after the other.
extern "C" __global__ void __launch_bounds__(64) pairs(const float* x, float* y) {
    __shared__ Pair kept[64];
    const int i = static_cast<int>(threadIdx.x);
    kept[i].value = x[i];                 // store shared 4: 2 / 1
    kept[i].place = i;                    // store shared 4: 2 / 1
    const Pair own = kept[i];             // load shared 4: 2 / 1
    reinterpret_cast<Pair*>(y)[i] = own;  // store global 4: 8 / 4
}

// Lanes that skip a step, or stay in a loop for longer, are with the others again behind it.
extern "C" __global__ void __launch_bounds__(64) apart(const float* x, float* y) {
    const int i = static_cast<int>(threadIdx.x);
    float v = 0;
    for (int k = 0; k < 4; k++) {
        if ((i + k) % 4 == 0) continue;
        v += x[32 * k + i];  // load global 4: 4 / 3
    }
    for (int k = 0; k < i % 2; k++) v += x[i];
    y[i] = v;  // store global 4: 4 / 4
}

// The 16 lanes that go on are a warp's access of their own.
extern "C" __global__ void __launch_bounds__(64) half_leaves(const float* x, float* y) {
    const int i = static_cast<int>(threadIdx.x);
    if (i % 32 >= 16) return;
    const float v = x[i];  // load global 4: 2 / 2
    __syncwarp(0xffffu);
    y[i] = v;  // store global 4: 2 / 2
}

extern "C" __global__ void __launch_bounds__(64) atomics(const float* x, float* y) {
    atomicAdd(&y[8 * static_cast<int>(threadIdx.x)], x[0]);  // atomic global 4: 32 / 4
}
