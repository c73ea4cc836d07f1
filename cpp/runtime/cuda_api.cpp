// Finds libcudart and its functions, and puts its errors into words.
#include "runtime/cuda_api.h"

#include <cstdlib>
#include <vector>

#if !defined(_WIN32)
#include <dlfcn.h>
#endif

namespace omni2 {
namespace {

constexpr const char* kSystemLibraries[] = {"libcudart.so.13", "libcudart.so.12", "libcudart.so"};

#if defined(_WIN32)

void* open_library(const std::string&, std::string& reason) {
    reason = "CUDA is used on Linux only";
    return nullptr;
}

void* find_function(void*, const char*) { return nullptr; }

#else

void* open_library(const std::string& path, std::string& reason) {
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) reason = dlerror();
    return library;
}

void* find_function(void* library, const char* name) { return dlsym(library, name); }

#endif

std::vector<std::string> candidates(const std::string& library) {
    if (!library.empty()) return {library};
    const char* chosen = std::getenv("OMNI2_CUDART");
    if (chosen && *chosen) return {chosen};
    return {std::begin(kSystemLibraries), std::end(kSystemLibraries)};
}

template <class Function>
void resolve(void* library, const std::string& path, const char* name, Function& function) {
    function = reinterpret_cast<Function>(find_function(library, name));
    if (!function)
        throw RuntimeFailure(path + " has no function " + name,
                             "let OMNI2_CUDART name the libcudart of CUDA 12.8 or newer (pip: nvidia-cuda-runtime)");
}

// By number, since libraries of all versions agree on those (driver_types.h).
const char* remedy_for(CudaStatus status) {
    switch (status) {
        case kCudaOutOfMemory:
            return "free memory on the device, or admit fewer sessions";
        case 35:  // cudaErrorInsufficientDriver: also where there is no driver at all
            return "install an NVIDIA driver that is new enough for this libcudart, or run on the CPU";
        case 3:    // cudaErrorInitializationError
        case 34:   // cudaErrorStubLibrary
        case 46:   // cudaErrorDevicesUnavailable
        case 100:  // cudaErrorNoDevice
        case 803:  // cudaErrorSystemDriverMismatch
        case 804:  // cudaErrorCompatNotSupportedOnDevice
            return "check with nvidia-smi that the driver runs, let CUDA_VISIBLE_DEVICES name a device, or use the CPU";
        case 200:  // cudaErrorInvalidKernelImage
        case 209:  // cudaErrorNoKernelImageForDevice
        case 222:  // cudaErrorUnsupportedPtxVersion
            return "compile the kernels for this device";
        case 900:  // cudaErrorStreamCaptureUnsupported
        case 901:  // cudaErrorStreamCaptureInvalidated
        case 902:  // cudaErrorStreamCaptureMerge
        case 904:  // cudaErrorStreamCaptureUnjoined
        case 905:  // cudaErrorStreamCaptureIsolation
        case 906:  // cudaErrorStreamCaptureImplicit
        case 907:  // cudaErrorCapturedEvent
            return "run it without a CUDA graph: what it does cannot be captured";
        case 214:  // cudaErrorECCUncorrectable
        case 702:  // cudaErrorLaunchTimeout
        case 714:  // cudaErrorHardwareStackError
        case 700:  // cudaErrorIllegalAddress
        case 715:  // cudaErrorIllegalInstruction
        case 716:  // cudaErrorMisalignedAddress
        case 719:  // cudaErrorLaunchFailure
            return "start the process again: the device has given up all its work; compute-sanitizer names the kernel";
        default:
            return "look the error up in the CUDA runtime's documentation";
    }
}

}  // namespace

std::shared_ptr<const CudaApi> load_cuda_api(const std::string& library) {
    std::string reasons;
    for (const std::string& path : candidates(library)) {
        std::string reason;
        void* loaded = open_library(path, reason);
        if (!loaded) {
            reasons += (reasons.empty() ? "" : "; ") + reason;
            continue;
        }
        auto api = std::make_shared<CudaApi>();
        api->library = path;
#define OMNI2_RESOLVE(function, parameters) resolve(loaded, path, #function, api->function);
        OMNI2_CUDA_FUNCTIONS(OMNI2_RESOLVE)
#undef OMNI2_RESOLVE
        resolve(loaded, path, "cudaGetErrorName", api->cudaGetErrorName);
        resolve(loaded, path, "cudaGetErrorString", api->cudaGetErrorString);
        return api;
    }
    throw RuntimeFailure(
        "CUDA's runtime library cannot be loaded (" + reasons + ")",
        "install CUDA 12.8 or newer (pip: nvidia-cuda-runtime), or let OMNI2_CUDART name libcudart.so");
}

RuntimeFailure cuda_failure(const CudaApi& api, const char* function, CudaStatus status) {
    return RuntimeFailure(std::string(function) + " failed with " + api.cudaGetErrorName(status) + " (" +
                              std::to_string(status) + "): " + api.cudaGetErrorString(status),
                          remedy_for(status));
}

void check(const CudaApi& api, const char* function, CudaStatus status) {
    if (status == kCudaSuccess) return;
    ignore(api, status);  // or the next library on this thread that asks would take the error for its own
    throw cuda_failure(api, function, status);
}

void ignore(const CudaApi& api, CudaStatus status) {
    if (status != kCudaSuccess) api.cudaGetLastError();
}

}  // namespace omni2
