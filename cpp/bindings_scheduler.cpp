// Python's view of the scheduler and its simulation: callables become stages, objects become payloads, and exceptions
// pass both ways. Signatures and rules are documented in engine/omni2_engine/_core.pyi.
//
// The interpreter lock is released before a scheduler's own lock is waited for, with one exception: a stage asks for
// its payloads with the interpreter lock held, so that nothing can be cancelled between the answer and the call into
// Python. The scheduler holds its lock for moments and never while it waits for the interpreter's, so the two cannot
// deadlock.
#include <pybind11/stl.h>

#include <optional>

#include "bindings.h"
#include "interpreter.h"
#include "runtime/cuda_runtime.h"
#include "runtime/host_runtime.h"
#include "scheduler/scheduler.h"
#include "scheduler/simulation.h"

namespace py = pybind11;

namespace omni2 {
namespace {

struct PyStage {
    std::string name;
    py::object run;
    size_t max_batch;
    int priority;
    bool launches;
};

// A Python object that any thread may let go of.
Payload hold(py::object object) {
    return Payload(object.release().ptr(), [](void* pointer) {
        const py::gil_scoped_acquire lock;
        Py_DECREF(static_cast<PyObject*>(pointer));
    });
}

py::object held(const Payload& payload) {
    return py::reinterpret_borrow<py::object>(static_cast<PyObject*>(payload.get()));
}

py::list held(const std::vector<Payload>& payloads) {
    py::list objects(payloads.size());
    for (size_t i = 0; i < payloads.size(); ++i) objects[i] = held(payloads[i]);
    return objects;
}

std::exception_ptr failure_of(const py::handle& exception) {
    PyErr_SetObject(py::type::handle_of(exception).ptr(), exception.ptr());
    return std::make_exception_ptr(py::error_already_set());
}

[[noreturn]] void raise(PyObject* type, const std::string& message) {
    PyErr_SetString(type, message.c_str());
    throw py::error_already_set();
}

// What a stage's callable returned for so many tasks.
Errors errors_of(const py::object& result, size_t tasks) {
    if (result.is_none()) return {};
    if (!py::isinstance<py::list>(result)) raise(PyExc_TypeError, "a stage must return None or a list");
    const auto items = py::cast<py::list>(result);
    if (items.size() != tasks)
        raise(PyExc_ValueError, "a stage returned " + std::to_string(items.size()) + " results for " +
                                    std::to_string(tasks) + " tasks — return one for each, or None");
    Errors errors;
    for (const py::handle item : items) {
        if (!item.is_none() && !PyExceptionInstance_Check(item.ptr()))
            raise(PyExc_TypeError, "a stage's results must be exceptions or None");
        errors.push_back(item.is_none() ? nullptr : failure_of(item));
    }
    return errors;
}

Scheduler::Stage scheduler_stage(const PyStage& stage) {
    const bool launches = stage.launches;
    auto run = [callable = hold(stage.run), launches](const Scheduler::Admit& admit, Stream& stream) {
        thread_local const ThreadState kept;
        const py::gil_scoped_acquire lock;
        std::vector<Payload>& payloads = admit();
        if (payloads.empty()) return Errors{};
        const py::object result =
            launches ? held(callable)(held(payloads), stream.handle()) : held(callable)(held(payloads));
        Errors errors = errors_of(result, payloads.size());
        if (!launches) payloads.clear();  // now, with the interpreter lock, which may be long in coming back
        return errors;
    };
    return {{stage.max_batch, stage.priority}, std::move(run), launches};
}

Simulation::Stage simulation_stage(const PyStage& stage) {
    const bool launches = stage.launches;
    auto run = [callable = hold(stage.run), launches](const std::vector<Payload>& payloads) {
        const py::object result = launches ? held(callable)(held(payloads), 0) : held(callable)(held(payloads));
        return errors_of(result, payloads.size());
    };
    return {{stage.max_batch, stage.priority}, std::move(run)};
}

// `failed` as a C++ function. What it raises in turn has no caller to go to on a scheduler's thread.
template <class Machine>
Failed listener(const py::object& failed) {
    if (failed.is_none()) return nullptr;
    return [callable = hold(failed)](const std::exception_ptr& error) {
        const py::gil_scoped_acquire lock;
        try {
            held(callable)(python_error(error));
        } catch (py::error_already_set& raised) {
            if (std::is_same<Machine, Simulation>::value) throw;
            raised.discard_as_unraisable("the scheduler's report of a failed task");
        }
    };
}

Order order_of(const std::string& name) {
    if (name == "deadline") return Order::kDeadline;
    if (name == "arrival") return Order::kArrival;
    throw py::value_error("order must be 'deadline' or 'arrival', not '" + name + "'");
}

std::shared_ptr<Runtime> runtime_of(const std::string& name, const std::optional<std::string>& library) {
    if (name == "host") return host_runtime();
    if (name == "cuda") return cuda_runtime(library.value_or(""));
    throw py::value_error("runtime must be 'host' or 'cuda', not '" + name + "'");
}

std::shared_ptr<Scheduler> make_scheduler(const std::vector<PyStage>& stages, const std::string& runtime,
                                          const std::optional<std::string>& library, std::optional<size_t> width,
                                          const std::string& order) {
    std::vector<Scheduler::Stage> converted;
    for (const PyStage& stage : stages) converted.push_back(scheduler_stage(stage));
    const Order chosen = order_of(order);
    const Unlocked unlocked;
    return shared_with_python(std::make_unique<Scheduler>(std::move(converted), runtime_of(runtime, library),
                                                          width.value_or(stages.size()), chosen));
}

std::unique_ptr<Simulation> make_simulation(const std::vector<PyStage>& stages, const py::object& cost,
                                            std::optional<size_t> width, const std::string& order) {
    std::vector<Simulation::Stage> converted;
    for (const PyStage& stage : stages) converted.push_back(simulation_stage(stage));
    return std::make_unique<Simulation>(
        std::move(converted),
        [callable = hold(cost)](size_t stage, const std::vector<Payload>& payloads) {
            return held(callable)(stage, held(payloads)).cast<double>();
        },
        width.value_or(stages.size()), order_of(order));
}

py::list trace_of(const Simulation& simulation) {
    py::list trace;
    for (const auto& call : simulation.trace())
        trace.append(py::make_tuple(call.stage, call.start, call.stop, call.sessions));
    return trace;
}

struct KeepLock {  // a simulation has one thread: the interpreter lock stays with it
    KeepLock() {}
};

template <class Machine, class Guard, class Class>
void bind_common(Class& bound) {
    const auto session = py::arg("session");
    const py::call_guard<Guard> guarded;
    bound.def(
        "open",
        [](Machine& machine, const py::object& failed, double run_ahead) {
            Failed callback = listener<Machine>(failed);
            const Guard guard;
            return machine.open(std::move(callback), run_ahead);
        },
        py::arg("failed") = py::none(), py::arg("run_ahead") = kNever);
    bound.def(
        "submit",
        [](Machine& machine, SessionId id, size_t stage, py::object payload, const std::vector<TaskId>& after,
           int64_t key) {
            Payload kept = hold(std::move(payload));
            const Guard guard;
            return machine.submit(id, stage, std::move(kept), after, key);
        },
        session, py::arg("stage"), py::arg("payload"), py::arg("after") = std::vector<TaskId>(), py::arg("key") = 0);
    bound.def("begin", &Machine::begin, session, guarded);
    bound.def("delivered", &Machine::delivered, session, py::arg("seconds"), guarded);
    bound.def("finish", &Machine::finish, session, guarded);
    bound.def("hold", &Machine::hold, session, py::arg("held"), guarded);
    bound.def("cancel", &Machine::cancel, session, guarded);
    bound.def("revive", &Machine::revive, session, guarded);
    bound.def("close", &Machine::close, session, guarded);
    bound.def("lead", &Machine::lead, session, guarded);
    bound.def("shutdown", &Machine::shut_down, guarded);
    bound.def("now", &Machine::now, guarded);
    bound.def(
        "drained",
        [](Machine& machine, SessionId id, std::optional<double> timeout) {
            const Guard guard;
            return machine.drained(id, timeout.value_or(kNever));
        },
        session, py::arg("timeout") = py::none());
    bound.def("wanted", &Machine::wanted, py::arg("stage"), guarded);
    bound.def("counts", [](const Machine& machine) {
        const Guard guard;
        const Counts counts = machine.counts();
        return std::make_tuple(counts.sessions, counts.queued, counts.running);
    });
    bound.def("__enter__", [](py::object self) { return self; });
    bound.def("__exit__", [](Machine& machine, const py::args&) {
        const Guard guard;
        machine.shut_down();
    });
}

}  // namespace

void bind_scheduler(py::module_& module) {
    const auto error = py::register_exception<SchedulerError>(module, "SchedulerError", PyExc_RuntimeError);
    py::register_exception<SessionCancelled>(module, "SessionCancelledError", error);
    py::register_exception<SchedulerClosed>(module, "SchedulerClosedError", error);

    py::class_<PyStage>(module, "Stage")
        .def(py::init([](std::string name, py::object run, size_t max_batch, int priority, bool launches) {
                 if (!PyCallable_Check(run.ptr())) throw py::type_error("a stage's run must be callable");
                 if (max_batch == 0) throw py::value_error("max_batch must be at least 1");
                 return PyStage{std::move(name), std::move(run), max_batch, priority, launches};
             }),
             py::arg("name"), py::arg("run"), py::arg("max_batch") = 1, py::arg("priority") = 0,
             py::arg("launches") = false)
        .def_readonly("name", &PyStage::name)
        .def_readonly("run", &PyStage::run)
        .def_readonly("max_batch", &PyStage::max_batch)
        .def_readonly("priority", &PyStage::priority)
        .def_readonly("launches", &PyStage::launches);

    py::class_<Scheduler, std::shared_ptr<Scheduler>> scheduler(module, "Scheduler");
    scheduler.def(py::init(&make_scheduler), py::arg("stages"), py::arg("runtime") = "host",
                  py::arg("cuda_library") = py::none(), py::arg("width") = py::none(), py::arg("order") = "deadline");
    bind_common<Scheduler, Unlocked>(scheduler);

    py::class_<Simulation> simulation(module, "Simulation");
    simulation.def(py::init(&make_simulation), py::arg("stages"), py::arg("cost"), py::arg("width") = py::none(),
                   py::arg("order") = "deadline");
    bind_common<Simulation, KeepLock>(simulation);
    simulation.def(
        "at",
        [](Simulation& self, double time, py::object action) {
            self.at(time, [callable = hold(std::move(action))] { held(callable)(); });
        },
        py::arg("time"), py::arg("action"));
    simulation.def("run", &Simulation::run, py::arg("until") = kNever);
    simulation.def_property_readonly("trace", &trace_of);

    shut_down_at_exit();
    start_anew_after_fork();
}

}  // namespace omni2
