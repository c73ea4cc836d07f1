// The parts of the Python module omni2_engine._core that are bound in files of their own, and what they share.
#pragma once

#include <pybind11/pybind11.h>

#include <exception>

namespace omni2 {

void bind_device(pybind11::module_& module);
void bind_runtime(pybind11::module_& module);
void bind_scheduler(pybind11::module_& module);

// The Python exception object that a failure stands for: the one raised in Python with its traceback, a BackendError
// for a RuntimeFailure (a CapacityError for lack of memory), else a RuntimeError. The interpreter lock is held;
// `failure` is not null.
pybind11::object python_error(const std::exception_ptr& failure);

}  // namespace omni2
