#include "cuda/module.h"

#include <utility>

namespace omni2 {
namespace {

constexpr size_t kSharedMemoryUnasked = 48 << 10;  // bytes; more of it must be allowed for a kernel first

}  // namespace

CudaModule::CudaModule(Api api, const std::string& image)
    : api_(std::move(api)), library_(owned<CUlib_st>(api_, nullptr)) {
    CUlib_st* library = nullptr;
    OMNI2_CUDA(*api_, cudaLibraryLoadData, &library, image.c_str(), nullptr, nullptr, 0, nullptr, nullptr, 0);
    library_ = owned(api_, library);
}

CUkern_st* CudaModule::kernel(const std::string& name, size_t shared_memory) const {
    CUkern_st* kernel = nullptr;
    const CudaStatus status = api_->cudaLibraryGetKernel(&kernel, library_.get(), name.c_str());
    if (status != kCudaSuccess) {
        ignore(*api_, status);
        const CudaError failure = cuda_error(*api_, "cudaLibraryGetKernel", status);
        throw CudaError("there is no kernel " + name + ": " + failure.problem(), failure.remedy());
    }
    if (shared_memory > kSharedMemoryUnasked)
        OMNI2_CUDA(*api_, cudaFuncSetAttribute, kernel, kCudaMaxDynamicSharedMemory, static_cast<int>(shared_memory));
    return kernel;
}

}  // namespace omni2
