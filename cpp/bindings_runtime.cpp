// Python's view of the runtimes: whether there is CUDA, and which exception a failure becomes.
#include <pybind11/stl.h>

#include <optional>
#include <string>

#include "bindings.h"
#include "runtime/cuda_runtime.h"

namespace py = pybind11;

namespace omni2 {
namespace {

py::object backend_error(const RuntimeFailure& failure) {
    const char* const name = dynamic_cast<const OutOfMemory*>(&failure) ? "CapacityError" : "BackendError";
    return py::module_::import("omni2_engine.errors").attr(name)(failure.problem(), failure.remedy());
}

std::optional<std::string> why_no_cuda(const std::optional<std::string>& library) {
    const py::gil_scoped_release release;
    try {
        cuda_runtime(library.value_or(""));
        return std::nullopt;
    } catch (const RuntimeFailure& failure) {
        return failure.what();
    }
}

}  // namespace

py::object python_error(const std::exception_ptr& failure) {
    try {
        std::rethrow_exception(failure);
    } catch (const py::error_already_set& raised) {
        if (raised.trace()) PyException_SetTraceback(raised.value().ptr(), raised.trace().ptr());
        return raised.value();
    } catch (const RuntimeFailure& refused) {
        return backend_error(refused);
    } catch (const std::exception& other) {
        return py::handle(PyExc_RuntimeError)(other.what());
    } catch (...) {
        return py::handle(PyExc_RuntimeError)("a C++ exception that says nothing about itself");
    }
}

void bind_runtime(py::module_& module) {
    py::register_exception_translator([](std::exception_ptr failure) {
        try {
            if (failure) std::rethrow_exception(failure);
        } catch (const RuntimeFailure& refused) {
            const py::object error = backend_error(refused);
            PyErr_SetObject(py::type::handle_of(error).ptr(), error.ptr());
        }
    });
    module.def("cuda_available", &why_no_cuda, py::arg("library") = py::none());
    bind_device(module);
}

}  // namespace omni2
