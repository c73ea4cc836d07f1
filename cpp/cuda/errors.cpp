#include "cuda/errors.h"

namespace omni2 {
namespace {

const char* remedy_for(CudaStatus status) {
    switch (status) {
        case kCudaOutOfMemory:
            return "free memory on the device, or admit fewer sessions";
        case kCudaInsufficientDriver:  // also where no driver is installed
            return "install an NVIDIA driver from 580 on (for CUDA 13, which pip brings), or run on the CPU";
        case kCudaInitializationError:
        case kCudaStubLibrary:
        case kCudaDevicesUnavailable:
        case kCudaNoDevice:
        case kCudaDriverMismatch:
        case kCudaCompatNotSupported:
            return "check with nvidia-smi that the driver runs, let CUDA_VISIBLE_DEVICES name a device, or use the CPU";
        case kCudaInvalidImage:
        case kCudaNoImageForDevice:
        case kCudaUnsupportedPtx:
            return "compile the kernels for this device";
        case kCudaUncorrectableMemory:
        case kCudaIllegalAddress:
        case kCudaLaunchTimeout:
        case kCudaHardwareStack:
        case kCudaIllegalInstruction:
        case kCudaMisalignedAddress:
        case kCudaLaunchFailure:
            return "start the process again: the device has dropped all its work; compute-sanitizer names the kernel";
        default:
            if (status >= kCudaFirstCaptureError && status <= kCudaLastCaptureError)
                return "run it without a CUDA graph: what it does cannot be captured";
            return "look the error up in the CUDA runtime's documentation";
    }
}

}  // namespace

CudaError cuda_error(const CudaApi& api, const char* function, CudaStatus status) {
    return CudaError(std::string(function) + " failed with " + api.cudaGetErrorName(status) + " (" +
                         std::to_string(status) + "): " + api.cudaGetErrorString(status),
                     remedy_for(status));
}

void check(const CudaApi& api, const char* function, CudaStatus status) {
    if (status == kCudaSuccess) return;
    ignore(api, status);
    throw cuda_error(api, function, status);
}

void ignore(const CudaApi& api, CudaStatus status) {
    if (status != kCudaSuccess) api.cudaGetLastError();
}

}  // namespace omni2
