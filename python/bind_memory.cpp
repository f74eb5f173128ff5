// Arrays whose memory comes from csrc/common/blocks.h and goes back there with the last array that looks into it.
#include <pybind11/stl.h>

#include <vector>

#include "../csrc/common/blocks.h"
#include "../csrc/common/fingerprint.h"
#include "bindings.h"
#include "convert.h"

namespace nst {
namespace {

struct Block {
    void* data;
    std::size_t bytes;
};

void give(void* block) {
    const auto* b = static_cast<Block*>(block);
    give_block(b->data, b->bytes);
    delete b;
}

py::array empty(const py::dtype& dtype, const std::vector<py::ssize_t>& shape, std::size_t bytes) {
    auto* block = new Block{nullptr, bytes};
    try {
        block->data = take_block(bytes);
    } catch (...) {
        delete block;
        throw;
    }
    const py::capsule owner(block, &give);
    return py::array(dtype, shape, {}, block->data, owner);
}

std::uint64_t fingerprint_of(const py::array& a, std::size_t step) {
    if (!(a.flags() & py::array::c_style) || step < 1)
        throw std::invalid_argument("native kernel: a fingerprint needs contiguous memory and a step of at least 1");
    return fingerprint(static_cast<const unsigned char*>(a.data()), static_cast<std::size_t>(a.size()),
                       static_cast<std::size_t>(a.itemsize()), step);
}

}  // namespace

void bind_memory(py::module_& m) {
    m.def("fingerprint", &fingerprint_of, py::arg("a").noconvert(), py::arg("step"));
    m.def("empty", &empty, py::arg("dtype"), py::arg("shape"), py::arg("bytes"));
    m.def("count_blocks", [] {
        const BlockCount count = count_blocks();
        return py::make_tuple(count.used, count.kept);
    });
    m.def("keep_blocks", &keep_blocks, py::arg("begin"));
    m.def("give_back_blocks", &give_back_blocks);
    m.attr("kept_limit") = kept_limit;
}

}  // namespace nst
