#include "../csrc/pairwise/pairwise.h"
#include "bindings.h"
#include "convert.h"

namespace nst {
namespace {

template <class T>
PairwiseShape shape_of(const Array<T>& a, const Array<T>& b) {
    expect_rank(a, 2, "a");
    input(b, {b.ndim() == 2 ? b.shape(0) : 0, a.shape(1)}, "b");
    return {a.shape(0), b.shape(0), a.shape(1)};
}

template <class T, class Call>
void forward(const Array<T>& a, const Array<T>& b, Array<T>& out, const Call& call) {
    const PairwiseShape s = shape_of(a, b);
    T* to = output(out, {s.rows, s.columns}, "out");
    const T *ap = a.data(), *bp = b.data();
    py::gil_scoped_release release;
    call(ap, bp, s, to);
}

// A gradient, or null for None: not wanted.
template <class T>
T* wanted(const py::object& o, py::ssize_t rows, py::ssize_t depth, const char* name) {
    if (o.is_none()) return nullptr;
    if (!py::isinstance<Array<T>>(o)) throw std::invalid_argument("native kernel: a gradient has the wrong type");
    auto array = py::reinterpret_borrow<Array<T>>(o);
    return output(array, {rows, depth}, name);
}

template <class T, class Call>
void backward(const Array<T>& a, const Array<T>& b, const Array<T>& g, const py::object& da, const py::object& db,
              const Call& call) {
    const PairwiseShape s = shape_of(a, b);
    const T* gp = input(g, {s.rows, s.columns}, "g");
    T* to_a = wanted<T>(da, s.rows, s.depth, "da");
    T* to_b = wanted<T>(db, s.columns, s.depth, "db");
    const T *ap = a.data(), *bp = b.data();
    py::gil_scoped_release release;
    call(ap, bp, gp, s, to_a, to_b);
}

// u, v: rows of unit length; inverse_a, inverse_b: one over the length that the row had.
template <class T>
void cosine_forward(const Array<T>& a, const Array<T>& b, Array<T>& u, Array<T>& v, Array<double>& inverse_a,
                    Array<double>& inverse_b, Array<T>& out) {
    const PairwiseShape s = shape_of(a, b);
    T* up = output(u, {s.rows, s.depth}, "u");
    T* vp = output(v, {s.columns, s.depth}, "v");
    double* ip = output(inverse_a, {s.rows}, "inverse_a");
    double* jp = output(inverse_b, {s.columns}, "inverse_b");
    forward<T>(a, b, out, [&](const T* ap, const T* bp, const PairwiseShape& shape, T* to) {
        NST_CALL(pairwise_cosine_forward_cpu<T>(ap, bp, shape, up, vp, ip, jp, to));
    });
}

template <class T>
void cosine_backward(const Array<T>& u, const Array<T>& v, const Array<double>& inverse_a,
                     const Array<double>& inverse_b, const Array<T>& g, const py::object& da, const py::object& db) {
    const PairwiseShape s = shape_of(u, v);
    const double* ip = input(inverse_a, {s.rows}, "inverse_a");
    const double* jp = input(inverse_b, {s.columns}, "inverse_b");
    backward<T>(u, v, g, da, db,
                [&](const T* up, const T* vp, const T* gp, const PairwiseShape& shape, T* to_a, T* to_b) {
                    NST_CALL(pairwise_cosine_backward_cpu<T>(up, vp, ip, jp, gp, shape, to_a, to_b));
                });
}

template <class T>
void nearest(const Array<T>& q, const Array<T>& p, int metric, Array<T>& values, Array<std::int64_t>& indices) {
    const PairwiseShape s = shape_of(q, p);
    expect_rank(values, 2, "values");
    const py::ssize_t k = values.shape(1);
    if (k < 1 || k > s.columns) throw std::invalid_argument("native kernel: k lies outside 1 .. points");
    if (metric < 0 || metric > 2) throw std::invalid_argument("native kernel: metric is 0, 1 or 2");
    T* to = output(values, {s.rows, k}, "values");
    std::int64_t* at = output(indices, {s.rows, k}, "indices");
    const T *qp = q.data(), *pp = p.data();
    py::gil_scoped_release release;
    NST_CALL(nearest_forward_cpu<T>(qp, pp, s, k, static_cast<Metric>(metric), to, at));
}

#define NST_BIND_PAIRWISE(op)                                                                                     \
    m.def(                                                                                                        \
        #op "_forward_cpu",                                                                                       \
        [](const Array<T>& a, const Array<T>& b, Array<T>& out) {                                                 \
            forward<T>(a, b, out, [](const T* ap, const T* bp, const PairwiseShape& s, T* to) {                   \
                NST_CALL(op##_forward_cpu<T>(ap, bp, s, to));                                                     \
            });                                                                                                   \
        },                                                                                                        \
        py::arg("a").noconvert(), py::arg("b").noconvert(), py::arg("out").noconvert());                          \
    m.def(                                                                                                        \
        #op "_backward_cpu",                                                                                      \
        [](const Array<T>& a, const Array<T>& b, const Array<T>& g, const py::object& da, const py::object& db) { \
            backward<T>(a, b, g, da, db,                                                                          \
                        [](const T* ap, const T* bp, const T* gp, const PairwiseShape& s, T* to_a, T* to_b) {     \
                            NST_CALL(op##_backward_cpu<T>(ap, bp, gp, s, to_a, to_b));                            \
                        });                                                                                       \
        },                                                                                                        \
        py::arg("a").noconvert(), py::arg("b").noconvert(), py::arg("g").noconvert(), py::arg("da"), py::arg("db"))

template <class T>
void bind(py::module_& m) {
    NST_BIND_PAIRWISE(pairwise_sqdist);
    NST_BIND_PAIRWISE(pairwise_inner);
    m.def("pairwise_cosine_forward_cpu", &cosine_forward<T>, py::arg("a").noconvert(), py::arg("b").noconvert(),
          py::arg("u").noconvert(), py::arg("v").noconvert(), py::arg("inverse_a").noconvert(),
          py::arg("inverse_b").noconvert(), py::arg("out").noconvert());
    m.def("pairwise_cosine_backward_cpu", &cosine_backward<T>, py::arg("u").noconvert(), py::arg("v").noconvert(),
          py::arg("inverse_a").noconvert(), py::arg("inverse_b").noconvert(), py::arg("g").noconvert(), py::arg("da"),
          py::arg("db"));
    m.def("nearest_forward_cpu", &nearest<T>, py::arg("q").noconvert(), py::arg("p").noconvert(), py::arg("metric"),
          py::arg("values").noconvert(), py::arg("indices").noconvert());
}

}  // namespace

void bind_pairwise(py::module_& m) {
    bind<float>(m);
    bind<double>(m);
}

}  // namespace nst
