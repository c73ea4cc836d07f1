// The runtime on a CUDA device, through a libcudart found when the program runs: nothing of CUDA is needed to build.
#pragma once

#include "runtime/runtime.h"

namespace omni2 {

// On the first device that CUDA_VISIBLE_DEVICES leaves. `library` is a path of libcudart; empty: the path in
// OMNI2_CUDART or, where that is not set, the libcudart of the system (CUDA 13, then 12). Throws RuntimeFailure where
// there is no library, driver or device.
std::shared_ptr<Runtime> cuda_runtime(const std::string& library = "");

// A graph for the CUDA runtime: a cudaGraphExec_t, which remains its maker's to destroy.
std::unique_ptr<Graph> cuda_graph(void* executable);

}  // namespace omni2
