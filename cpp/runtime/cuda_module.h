// Kernels compiled elsewhere, by NVRTC for instance, as the device loads them.
#pragma once

#include <string>

#include "runtime/cuda_handles.h"

namespace omni2 {

// A cubin, fatbin or PTX on the device. Its kernels are found by name and live as long as it does, which must be until
// all that was launched of them has run, graphs included.
class CudaModule {
public:
    CudaModule(Api api, const std::string& image);

    // Throws RuntimeFailure if there is none of that name. `shared_memory`: dynamic bytes it may be launched with;
    // above 48 KiB a device must be asked.
    CUkern_st* kernel(const std::string& name, size_t shared_memory = 0) const;

private:
    const Api api_;
    Handle<CUlib_st> library_;
};

}  // namespace omni2
