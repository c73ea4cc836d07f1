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

Rig host_rig() { return {host_runtime(), host_graph}; }

Rig cuda_rig() {
    fake_cuda_reset();
    auto graphs = std::make_shared<std::vector<std::unique_ptr<FakeGraph>>>();  // live as long as the rig
    return {cuda_runtime(FAKE_CUDART), [graphs](std::function<void()> function) {
                graphs->push_back(std::make_unique<FakeGraph>(std::move(function)));
                return cuda_graph(graphs->back()->executable());
            }};
}

}  // namespace omni2::test
