// The two runtimes under test.
#include "rig.h"

#include "fake_cudart.h"
#include "runtime/cuda_runtime.h"
#include "runtime/host_runtime.h"

namespace omni2::test {
namespace {

// A graph of the stand-in library that calls a std::function.
class FakeGraph final {
public:
    explicit FakeGraph(std::function<void()> function) : function_(std::move(function)) {
        graph_ = fake_cuda_graph([](void* self) { static_cast<FakeGraph*>(self)->function_(); }, this, 0);
    }
    ~FakeGraph() { fake_cuda_graph_destroy(graph_); }

    void* executable() const { return graph_; }

private:
    std::function<void()> function_;
    void* graph_;
};

}  // namespace

Rig host_rig() {
    const auto memory = [](size_t bytes) {
        return std::shared_ptr<void>(::operator new(bytes), [](void* begin) { ::operator delete(begin); });
    };
    return {host_runtime(), host_graph, memory, memory};
}

Rig cuda_rig() {
    fake_cuda_reset();
    auto graphs = std::make_shared<std::vector<std::unique_ptr<FakeGraph>>>();  // live as long as the rig
    const auto runtime = cuda_runtime(FAKE_CUDART);
    const auto graph = [graphs](std::function<void()> function) {
        graphs->push_back(std::make_unique<FakeGraph>(std::move(function)));
        return cuda_graph(graphs->back()->executable());
    };
    const auto memory = [runtime](size_t bytes) {
        const std::shared_ptr<DeviceMemory> owner = runtime->device_memory(bytes);
        return std::shared_ptr<void>(owner, reinterpret_cast<void*>(owner->address()));
    };
    const auto pinned = [runtime](size_t bytes) {
        const std::shared_ptr<PinnedMemory> owner = runtime->pinned_memory(bytes);
        return std::shared_ptr<void>(owner, owner->begin());
    };
    return {runtime, graph, memory, pinned};
}

}  // namespace omni2::test
