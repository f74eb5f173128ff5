// One function a kernel family, and one for memory; each adds its native functions to the module.
#pragma once

#include <pybind11/pybind11.h>

namespace nst {

void bind_memory(pybind11::module_& m);
void bind_conv(pybind11::module_& m);
void bind_pool(pybind11::module_& m);
void bind_norm(pybind11::module_& m);
void bind_prelu(pybind11::module_& m);
void bind_area(pybind11::module_& m);
void bind_gram(pybind11::module_& m);
void bind_style(pybind11::module_& m);
void bind_pairwise(pybind11::module_& m);
void bind_triplet(pybind11::module_& m);
void bind_vector(pybind11::module_& m);

}  // namespace nst
