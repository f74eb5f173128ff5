// Parts of a picture shrunk by averaging, from one table of sums.
//
//   area_sums   s[y][x] = sum of the levels above row y and left of column x, modulo 2^32
//   area_means  out[n][p][q] = (mean of the pixels that place (p, q) touches - shift) scale
//
// levels: (height, width, 3); sums: (height + 1, width + 1, 3), which is written and read as one run of elements with
// one more behind it: a pixel is loaded as four. boxes: (count, 4), left, top, right, bottom, inside the picture and
// not empty. Of n pixels to m, place i touches those from floor(i n / m) to ceil((i + 1) n / m).
#pragma once

#include <cstdint>

#include "../common/dispatch.h"

namespace nst {

struct AreaShape {
    std::int64_t height, width;         // of the picture
    std::int64_t count, rows, columns;  // of the results
};

#define NST_DECLARE_AREA(ns)                                                                                     \
    namespace ns {                                                                                               \
    void area_sums(const std::uint8_t* levels, std::int64_t height, std::int64_t width, std::uint32_t* sums);    \
    void area_means(const std::uint32_t* sums, const std::int64_t* boxes, AreaShape s, float shift, float scale, \
                    float* out);                                                                                 \
    }
NST_FOR_EACH_ISA(NST_DECLARE_AREA)

}  // namespace nst
