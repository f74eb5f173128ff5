// NumPy arrays in and out of the kernels. nstcore/ops checks what users pass; the checks here guard the kernels.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <initializer_list>
#include <stdexcept>
#include <string>

namespace nst {

namespace py = pybind11;

template <class T>
using Array = py::array_t<T, py::array::c_style>;

inline std::invalid_argument wrong_shape(const char* name) {
    return std::invalid_argument(std::string("native kernel: argument ") + name + " has the wrong shape");
}

// A contiguous argument of exactly this shape.
template <class T>
const T* input(const Array<T>& a, std::initializer_list<py::ssize_t> shape, const char* name) {
    bool same = static_cast<std::size_t>(a.ndim()) == shape.size();
    for (std::size_t i = 0; same && i < shape.size(); i++)
        same = a.shape(static_cast<py::ssize_t>(i)) == shape.begin()[i];
    if (!same) throw wrong_shape(name);
    return a.data();
}

template <class T>
T* output(Array<T>& a, std::initializer_list<py::ssize_t> shape, const char* name) {
    input(a, shape, name);
    return a.mutable_data();
}

// The same for an argument of the shape of another one.
template <class T>
const T* input_like(const Array<T>& other, const Array<T>& a, const char* name) {
    bool same = a.ndim() == other.ndim();
    for (py::ssize_t i = 0; same && i < a.ndim(); i++) same = a.shape(i) == other.shape(i);
    if (!same) throw wrong_shape(name);
    return a.data();
}

template <class T>
T* output_like(const Array<T>& other, Array<T>& a, const char* name) {
    input_like(other, a, name);
    return a.mutable_data();
}

template <class T>
void expect_rank(const Array<T>& a, py::ssize_t rank, const char* name) {
    if (a.ndim() != rank)
        throw std::invalid_argument(std::string("native kernel: argument ") + name + " has the wrong rank");
}

}  // namespace nst
