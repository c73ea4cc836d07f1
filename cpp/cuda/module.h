// Kernels compiled elsewhere, by NVRTC for instance, as the device loads them.
#pragma once

#include <string>

#include "cuda/handles.h"

namespace omni2 {

// A cubin, fatbin or PTX on the device. Its kernels are found by name and live as long as it does. It must outlive all
// launches of them, those in graphs included.
class CudaModule {
public:
    CudaModule(Api api, const std::string& image);

    // Throws CudaError if there is none of that name. `shared_memory`: the most dynamic bytes it is launched with.
    CUkern_st* kernel(const std::string& name, size_t shared_memory = 0) const;

private:
    const Api api_;
    Handle<CUlib_st> library_;
};

}  // namespace omni2
