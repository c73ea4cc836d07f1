// The parts of the Python module omni2_engine._core.
#pragma once

#include <pybind11/pybind11.h>

namespace omni2 {

void bind_sampling(pybind11::module_& module);
void bind_scheduler(pybind11::module_& module);
void bind_cuda(pybind11::module_& module);

}  // namespace omni2
