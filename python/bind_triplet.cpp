#include "bindings.h"

namespace nst {

void bind_triplet(pybind11::module_&) {}

}  // namespace nst
