#include "../csrc/area/area.h"

#include "bindings.h"
#include "convert.h"

namespace nst {
namespace {

void sums_of(const Array<std::uint8_t>& levels, Array<std::uint32_t>& sums) {
    expect_rank(levels, 3, "levels");
    const std::int64_t height = levels.shape(0), width = levels.shape(1);
    const std::uint8_t* from = input(levels, {height, width, 3}, "levels");
    std::uint32_t* to = output(sums, {(height + 1) * (width + 1) * 3 + 1}, "sums");
    py::gil_scoped_release release;
    NST_CALL(area_sums(from, height, width, to));
}

void means_of(const Array<std::uint32_t>& sums, std::int64_t height, std::int64_t width,
              const Array<std::int64_t>& boxes, float shift, float scale, Array<float>& out) {
    expect_rank(out, 4, "out");
    const AreaShape s{height, width, out.shape(0), out.shape(1), out.shape(2)};
    const std::uint32_t* from = input(sums, {(height + 1) * (width + 1) * 3 + 1}, "sums");
    const std::int64_t* edges = input(boxes, {s.count, 4}, "boxes");
    for (std::int64_t n = 0; n < s.count; n++) {
        const std::int64_t* box = edges + 4 * n;
        if (!(0 <= box[0] && box[0] < box[2] && box[2] <= width && 0 <= box[1] && box[1] < box[3] && box[3] <= height))
            throw std::invalid_argument("native kernel: a box is empty or not inside the picture");
    }
    float* to = output(out, {s.count, s.rows, s.columns, 3}, "out");
    py::gil_scoped_release release;
    NST_CALL(area_means(from, edges, s, shift, scale, to));
}

}  // namespace

void bind_area(py::module_& m) {
    using py::arg;
    m.def("area_sums", &sums_of, arg("levels").noconvert(), arg("sums").noconvert());
    m.def("area_means", &means_of, arg("sums").noconvert(), arg("height"), arg("width"), arg("boxes").noconvert(),
          arg("shift"), arg("scale"), arg("out").noconvert());
}

}  // namespace nst
