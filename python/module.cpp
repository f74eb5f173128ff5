// nstcore._native: the CPU kernels, and the switches for instruction set and threads. No logic lives here.
#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "../csrc/common/dispatch.h"
#include "../csrc/common/parallel.h"
#include "bindings.h"

namespace py = pybind11;

namespace {

constexpr nst::Isa every_isa[] = {nst::Isa::base, nst::Isa::avx2, nst::Isa::avx512};

py::list isas() {
    py::list names;
    for (const nst::Isa isa : every_isa)
        if (nst::isa_available(isa)) names.append(nst::isa_name(isa));
    return names;
}

void set_isa(const std::string& name) {
    for (const nst::Isa isa : every_isa)
        if (name == nst::isa_name(isa) && nst::isa_available(isa)) return nst::set_isa(isa);
    throw std::invalid_argument("no such instruction set on this machine: " + name);
}

}  // namespace

PYBIND11_MODULE(_native, m) {
    m.doc() = "CPU kernels of nstcore";
    m.def("isas", &isas);
    m.def("isa", [] { return std::string(nst::isa_name(nst::active_isa())); });
    m.def("set_isa", &set_isa, py::arg("name"));
    m.def("num_threads", &nst::num_threads);
    m.def("set_num_threads", &nst::set_num_threads, py::arg("n"));
    nst::bind_memory(m);
    nst::bind_conv(m);
    nst::bind_pool(m);
    nst::bind_norm(m);
    nst::bind_gram(m);
    nst::bind_prelu(m);
    nst::bind_area(m);
    nst::bind_style(m);
    nst::bind_pairwise(m);
    nst::bind_triplet(m);
    nst::bind_vector(m);
}
