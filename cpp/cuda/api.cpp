// Finds libcudart and its functions.
#include "cuda/api.h"

#include <cstdlib>
#include <vector>

#include "cuda/errors.h"

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
        throw CudaError(path + " has no function " + name,
                        "let OMNI2_CUDART name the libcudart of CUDA 12.8 or newer (pip: nvidia-cuda-runtime)");
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
    throw CudaError("CUDA's runtime library cannot be loaded (" + reasons + ")",
                    "install CUDA 12.8 or newer (pip: nvidia-cuda-runtime), or let OMNI2_CUDART name libcudart.so");
}

}  // namespace omni2
