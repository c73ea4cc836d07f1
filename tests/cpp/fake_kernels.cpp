// Modules whose kernels the host runs: a module is only looked at for what kind of image it is, its kernels are those
// that were added under their names.
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>

#include "fake_cudart.h"
#include "fake_device.h"

struct CUlib_st {};

struct CUkern_st {
    std::string name;
    std::function<int(const unsigned* grid, const unsigned* block, size_t shared_memory, void** arguments)> launch;
    std::vector<size_t> sizes;
};

namespace fake {
namespace {

struct Dim3 {
    unsigned x, y, z;
};

int live_modules = 0;

struct Kernels {
    std::map<std::string, const CUkern_st*> named;
    std::vector<std::unique_ptr<CUkern_st>> made;  // never freed: a launch may still be waiting for one
};

Kernels& kernels() {
    static auto* const all = new Kernels;
    return *all;
}

bool is_image(const char* code) {  // a cubin, a fatbin, or PTX
    static const unsigned char fatbin[] = {0x50, 0xed, 0x55, 0xba};
    return std::memcmp(code, "\x7f" "ELF", 4) == 0 || std::memcmp(code, fatbin, 4) == 0 || std::strstr(code, ".version");
}

// Replaces device addresses by where the host finds them; false: one is of no living memory.
bool translate(std::string& argument) {
    for (size_t place = 0; place + sizeof(void*) <= argument.size(); place += sizeof(void*)) {
        void* value;
        std::memcpy(&value, argument.data() + place, sizeof value);
        if (!is_device(value)) continue;
        void* found = contents(value, 1);
        if (!found) return false;
        std::memcpy(argument.data() + place, &found, sizeof found);
    }
    return true;
}

void run(const CUkern_st& kernel, Dim3 grid, Dim3 block, size_t shared_memory, std::vector<std::string> arguments) {
    std::vector<void*> pointers;
    {
        const Lock lock(mutex);
        for (std::string& argument : arguments) {
            if (!translate(argument)) return lose(kIllegalAddress);
            pointers.push_back(argument.data());
        }
    }
    const unsigned grid_sizes[] = {grid.x, grid.y, grid.z}, block_sizes[] = {block.x, block.y, block.z};
    if (kernel.launch(grid_sizes, block_sizes, shared_memory, pointers.data()) == 0) return;
    const Lock lock(mutex);
    lose(kLaunchFailure);
}

void add(CUkern_st kernel) {
    auto made = std::make_unique<CUkern_st>(std::move(kernel));
    kernels().named[made->name] = made.get();
    kernels().made.push_back(std::move(made));
}

template <class Function>
Function find(void* library, const char* name) {
    return reinterpret_cast<Function>(dlsym(library, name));
}

}  // namespace

void forget_kernels() { kernels().named.clear(); }

}  // namespace fake

using namespace fake;

extern "C" {

int cudaLibraryLoadData(CUlib_st** library, const void* code, int*, void**, unsigned, int*, void**, unsigned) {
    return guarded(__func__, [&](auto&) {
        if (const int status = unsafe_call()) return status;
        if (!is_image(static_cast<const char*>(code))) return kInvalidImage;
        *library = new CUlib_st;
        ++live_modules;
        return kSuccess;
    });
}

int cudaLibraryUnload(CUlib_st* library) {
    const Lock lock(mutex);
    delete library;
    --live_modules;
    const int status = obstacle(__func__, lock);
    return remembered(status ? status : unsafe_call());
}

int cudaLibraryGetKernel(CUkern_st** kernel, CUlib_st*, const char* name) {
    return guarded(__func__, [&](auto&) {
        const auto found = kernels().named.find(name);
        if (found == kernels().named.end()) return kSymbolNotFound;
        *kernel = const_cast<CUkern_st*>(found->second);
        return kSuccess;
    });
}

int cudaFuncSetAttribute(const void*, int attribute, int value) {
    return guarded(__func__, [&](auto&) {
        return attribute == 8 && value <= 100 << 10 ? kSuccess : kInvalidValue;
    });
}

int cudaLaunchKernel(const void* function, Dim3 grid, Dim3 block, void** arguments, size_t shared_memory,
                     CUstream_st* stream) {
    return guarded(__func__, [&](auto&) {
        if (size_t{block.x} * block.y * block.z > 1024 || grid.x == 0 || block.x == 0) return kInvalidValue;
        const CUkern_st& kernel = *static_cast<const CUkern_st*>(function);
        std::vector<std::string> values;
        for (size_t i = 0; i < kernel.sizes.size(); ++i)
            values.emplace_back(static_cast<const char*>(arguments[i]), kernel.sizes[i]);
        return enqueue(stream, "kernel " + kernel.name, [=, &kernel] { run(kernel, grid, block, shared_memory, values); });
    });
}

void fake_cuda_add_kernel(const char* name, FakeKernel launch, const size_t* sizes, int count) {
    const Lock lock(mutex);
    const auto run = [launch](const unsigned* grid, const unsigned* block, size_t shared_memory, void** arguments) {
        launch(grid, block, shared_memory, arguments);
        return 0;
    };
    add({name, run, std::vector<size_t>(sizes, sizes + count)});
}

int fake_cuda_emulate(const char* path) {
    void* const library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) return -1;
    using Launch = int (*)(const char*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void**);
    const auto launch = find<Launch>(library, "omni2_emulated_launch");
    const auto name = find<const char* (*)(int)>(library, "omni2_emulated_kernel");
    const auto bytes = find<int (*)(const char*, int)>(library, "omni2_emulated_parameter_bytes");
    const auto error = find<const char* (*)()>(library, "omni2_emulated_error");
    if (!launch || !name || !bytes || !error) return -1;
    const Lock lock(mutex);
    int count = 0;
    for (const char* kernel = name(0); kernel; kernel = name(++count)) {
        std::vector<size_t> sizes;
        while (bytes(kernel, static_cast<int>(sizes.size())) > 0)
            sizes.push_back(static_cast<size_t>(bytes(kernel, static_cast<int>(sizes.size()))));
        const auto run = [=](const unsigned* grid, const unsigned* block, size_t shared, void** arguments) {
            const int failed = launch(kernel, grid[0], grid[1], grid[2], block[0], block[1], block[2],
                                      static_cast<unsigned>(shared), arguments);
            if (failed) std::fprintf(stderr, "%s\n", error());
            return failed;
        };
        add({kernel, run, sizes});
    }
    return count;
}

int fake_cuda_live_modules() {
    const Lock lock(mutex);
    return live_modules;
}
}
