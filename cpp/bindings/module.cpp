// The Python module omni2_engine._core. Signatures and rules are documented in engine/omni2_engine/_core.pyi.
#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "processor.h"

PYBIND11_MODULE(_core, module) {
    module.def("processor_instructions", &omni2::processor_instructions);
    omni2::bind_sampling(module);
    omni2::bind_scheduler(module);
    omni2::bind_cuda(module);
}
