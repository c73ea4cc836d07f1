// CUDA's handles, released with the object that owns them.
#pragma once

#include <functional>
#include <memory>
#include <utility>

#include "cuda/errors.h"

namespace omni2 {

using Api = std::shared_ptr<const CudaApi>;

// While a thread captures a stream, CUDA refuses calls of that thread that may wait for the device, such as freeing
// memory, and drops the capture. Python frees objects at any moment. So release() calls the function at once, or when
// the thread's capture has ended.
void release(std::function<void()> function);
void capture_begins();
void capture_ends();

struct Destroy {
    Api api;

    void operator()(CUstream_st* stream) const { ignore(*api, api->cudaStreamDestroy(stream)); }
    void operator()(CUevent_st* event) const { ignore(*api, api->cudaEventDestroy(event)); }
    void operator()(CUgraph_st* graph) const { ignore(*api, api->cudaGraphDestroy(graph)); }
    void operator()(CUgraphExec_st* executable) const { ignore(*api, api->cudaGraphExecDestroy(executable)); }
    void operator()(CUlib_st* library) const {
        release([api = api, library] { ignore(*api, api->cudaLibraryUnload(library)); });
    }
};

template <class Object>
using Handle = std::unique_ptr<Object, Destroy>;

template <class Object>
Handle<Object> owned(const Api& api, Object* object) {
    return Handle<Object>(object, Destroy{api});
}

}  // namespace omni2
