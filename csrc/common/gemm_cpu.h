// The small matrix product that convolutions and distances are built from.
//
//   rows_product   C[m][n]  = sum_k A[m][k] B[k][n]     A by rows, B packed in panels; Outer takes A by columns
//
// Every element is summed in the order of k, one multiply-add after the other, whichever tile it falls in: the result
// does not depend on how the work is cut.
#pragma once

#include <cstdint>

#include "simd.h"

namespace nst::NST_ISA_NS {

using std::int64_t;

template <class T>
struct Tile {
    static constexpr int W = lanes<T>;
    static constexpr int NR = 2 * W;                            // columns: two vectors
    static constexpr int MR = vector_registers == 32 ? 14 : 6;  // rows: 2 MR accumulators + 3 registers
};

// What happens to a finished element: bias (NR values, or null) is added, then ReLU.
template <class T>
struct Epilogue {
    const T* bias = nullptr;
    bool relu = false;
};

// One tile of C: R rows x NR columns, kept in registers.
template <class T, int R, bool Outer>
inline void product_tile(const T* a, int64_t lda, const T* b, int64_t ldb, int64_t depth, T* c, int64_t ldc,
                         bool accumulate, Epilogue<T> epilogue) {
    constexpr int W = Tile<T>::W;
    Vec<T> c0[R], c1[R];
    for (int r = 0; r < R; r++) {
        c0[r] = accumulate ? load(c + r * ldc) : Vec<T>{};
        c1[r] = accumulate ? load(c + r * ldc + W) : Vec<T>{};
    }
    for (int64_t k = 0; k < depth; k++) {
        const Vec<T> b0 = load(b + k * ldb), b1 = load(b + k * ldb + W);
        for (int r = 0; r < R; r++) {
            const T s = Outer ? a[k * lda + r] : a[r * lda + k];
            c0[r] += s * b0;
            c1[r] += s * b1;
        }
    }
    if (epilogue.bias) {
        const Vec<T> b0 = load(epilogue.bias), b1 = load(epilogue.bias + W);
        for (int r = 0; r < R; r++) c0[r] += b0, c1[r] += b1;
    }
    if (epilogue.relu)
        for (int r = 0; r < R; r++) c0[r] = relu<T>(c0[r]), c1[r] = relu<T>(c1[r]);
    for (int r = 0; r < R; r++) {
        store(c + r * ldc, c0[r]);
        store(c + r * ldc + W, c1[r]);
    }
}

template <class T, bool Outer, int R = Tile<T>::MR>
inline void product_rows(int rows, const T* a, int64_t lda, const T* b, int64_t ldb, int64_t depth, T* c, int64_t ldc,
                         bool accumulate, Epilogue<T> epilogue) {
    if constexpr (R > 0) {
        if (rows == R) product_tile<T, R, Outer>(a, lda, b, ldb, depth, c, ldc, accumulate, epilogue);
        else product_rows<T, Outer, R - 1>(rows, a, lda, b, ldb, depth, c, ldc, accumulate, epilogue);
    }
}

// Up to MR rows x up to NR columns; a tile that sticks out on the right goes through a buffer.
template <class T, bool Outer>
inline void product_edge(int rows, int cols, const T* a, int64_t lda, const T* b, int64_t ldb, int64_t depth, T* c,
                         int64_t ldc, bool accumulate, Epilogue<T> epilogue) {
    constexpr int MR = Tile<T>::MR, NR = Tile<T>::NR;
    if (cols == NR) return product_rows<T, Outer>(rows, a, lda, b, ldb, depth, c, ldc, accumulate, epilogue);
    T tile[MR * NR];
    if (accumulate)
        for (int r = 0; r < rows; r++)
            for (int j = 0; j < NR; j++) tile[r * NR + j] = j < cols ? c[r * ldc + j] : T(0);
    product_rows<T, Outer>(rows, a, lda, b, ldb, depth, tile, NR, accumulate, epilogue);
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < cols; j++) c[r * ldc + j] = tile[r * NR + j];
}

// Packs B(k, n) = b[k * stride_k + n * stride_n] into panels [ceil(n / NR)][depth][NR], zeros on the right.
template <class T>
inline void pack_panels(const T* b, int64_t stride_k, int64_t stride_n, int64_t depth, int64_t cols, T* out) {
    constexpr int NR = Tile<T>::NR;
    for (int64_t n0 = 0; n0 < cols; n0 += NR)
        for (int64_t k = 0; k < depth; k++, out += NR)
            for (int j = 0; j < NR; j++) out[j] = n0 + j < cols ? b[k * stride_k + (n0 + j) * stride_n] : T(0);
}

// C[rows][cols] (+)= A[rows][depth] * panel, for one panel of up to NR columns.
template <class T>
inline void rows_product(int64_t rows, int cols, const T* a, int64_t lda, const T* panel, int64_t depth, T* c,
                         int64_t ldc, bool accumulate, Epilogue<T> epilogue = {}) {
    constexpr int MR = Tile<T>::MR, NR = Tile<T>::NR;
    for (int64_t i = 0; i < rows; i += MR) {
        const int r = static_cast<int>(min_of<int64_t>(MR, rows - i));
        product_edge<T, false>(r, cols, a + i * lda, lda, panel, NR, depth, c + i * ldc, ldc, accumulate, epilogue);
    }
}

}  // namespace nst::NST_ISA_NS
