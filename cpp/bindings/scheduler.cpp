// Python's view of the scheduler and its simulation: callables become stages, objects become payloads, and exceptions
// pass both ways. Signatures and rules are documented in engine/omni2_engine/_core.pyi.
//
// The interpreter lock is released before a scheduler's own lock is waited for, with one exception: a stage takes its
// payloads with the interpreter lock held, so that nothing can be cancelled between that and the call into Python. The
// scheduler holds its lock for moments and never while it waits for the interpreter's, so the two cannot deadlock.
#include <pybind11/stl.h>

#include <optional>

#include "bindings/bindings.h"
#include "bindings/gil.h"
#include "scheduler/scheduler.h"
#include "scheduler/simulation.h"

namespace py = pybind11;

namespace omni2 {
namespace {

// A Python object that any thread may drop.
Payload hold(py::object object) {
    return Payload(object.release().ptr(), [](void* pointer) {
        const py::gil_scoped_acquire lock;
        Py_DECREF(static_cast<PyObject*>(pointer));
    });
}

struct PyStage {
    std::string name;
    Payload run;  // the callable
    StageShape shape;
};

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

// The Python exception that a failure stands for, with its traceback. The interpreter lock is held.
py::object python_error(const std::exception_ptr& failure) {
    try {
        std::rethrow_exception(failure);
    } catch (const py::error_already_set& raised) {
        if (raised.trace()) PyException_SetTraceback(raised.value().ptr(), raised.trace().ptr());
        return raised.value();
    } catch (const std::exception& other) {
        return py::handle(PyExc_RuntimeError)(other.what());
    }
}

[[noreturn]] void raise(PyObject* type, const std::string& message) {
    PyErr_SetString(type, message.c_str());
    throw py::error_already_set();
}

// What a stage's callable returned for this number of tasks.
Errors errors_of(const PyStage& stage, const py::object& result, size_t tasks) {
    if (result.is_none()) return {};
    const std::string named = "stage " + stage.name;
    if (!py::isinstance<py::list>(result)) raise(PyExc_TypeError, named + " must return None or a list");
    const auto items = py::cast<py::list>(result);
    if (items.size() != tasks)
        raise(PyExc_ValueError, named + " returned " + std::to_string(items.size()) + " results for " +
                                    std::to_string(tasks) + " tasks — return one for each, or None");
    Errors errors;
    for (const py::handle item : items) {
        if (!item.is_none() && !PyExceptionInstance_Check(item.ptr()))
            raise(PyExc_TypeError, named + " must return exceptions or None in its list");
        errors.push_back(item.is_none() ? nullptr : failure_of(item));
    }
    return errors;
}

// The interpreter lock is held.
Errors run(const PyStage& stage, const std::vector<Payload>& payloads) {
    return errors_of(stage, held(stage.run)(held(payloads)), payloads.size());
}

Scheduler::Stage threaded(const PyStage& stage) {
    return {stage.shape, [stage](const Scheduler::TakePayloads& take_payloads) {
                thread_local const ThreadState kept;
                const py::gil_scoped_acquire lock;
                std::vector<Payload>& payloads = take_payloads();
                if (payloads.empty()) return Errors{};
                Errors errors = run(stage, payloads);
                payloads.clear();  // now, with the interpreter lock, which may be long in coming back
                return errors;
            }};
}

Simulation::Stage simulated(const PyStage& stage) {
    return {stage.shape, [stage](const std::vector<Payload>& payloads) { return run(stage, payloads); }};
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

std::shared_ptr<Scheduler> make_scheduler(const std::vector<PyStage>& stages, std::optional<size_t> width,
                                          const std::string& order) {
    std::vector<Scheduler::Stage> converted;
    for (const PyStage& stage : stages) converted.push_back(threaded(stage));
    const Order chosen = order_of(order);
    const Unlocked unlocked;
    return shared_with_python(std::make_unique<Scheduler>(std::move(converted), width.value_or(stages.size()), chosen));
}

std::unique_ptr<Simulation> make_simulation(const std::vector<PyStage>& stages, const py::object& cost,
                                            std::optional<size_t> width, const std::string& order) {
    std::vector<Simulation::Stage> converted;
    for (const PyStage& stage : stages) converted.push_back(simulated(stage));
    auto seconds = [callable = hold(cost)](size_t stage, const std::vector<Payload>& payloads) {
        return held(callable)(stage, held(payloads)).cast<double>();
    };
    return std::make_unique<Simulation>(std::move(converted), std::move(seconds), width.value_or(stages.size()),
                                        order_of(order));
}

py::list trace_of(const Simulation& simulation) {
    py::list trace;
    for (const auto& call : simulation.trace())
        trace.append(py::make_tuple(call.stage, call.start, call.stop, call.sessions));
    return trace;
}

// The scheduler is used without the interpreter lock, the simulation, which has one thread, with it.
template <class Change>
void change(Scheduler& scheduler, Change change) {
    const Unlocked unlocked;
    scheduler.change(change);
}

template <class Change>
void change(Simulation& simulation, Change change) {
    simulation.change(change);
}

template <class Read>
auto read(const Scheduler& scheduler, Read read) {
    const Unlocked unlocked;
    return scheduler.read(read);
}

template <class Read>
auto read(const Simulation& simulation, Read read) {
    return simulation.read(read);
}

bool drained(Scheduler& scheduler, SessionId session, double timeout) {
    const Unlocked unlocked;
    return scheduler.drained(session, timeout);
}

bool drained(Simulation& simulation, SessionId session, double) {
    return simulation.read([&](const Core& core, double) { return core.drained(session); });
}

void shut_down(Scheduler& scheduler) {
    const Unlocked unlocked;
    scheduler.shut_down();
}

void shut_down(Simulation& simulation) { simulation.shut_down(); }

// A method of Core's that changes it, as one of the machine's.
template <class Machine, class... Arguments>
auto changing(void (Core::*method)(Arguments...)) {
    return [method](Machine& machine, Arguments... arguments) {
        change(machine, [&](Core& core, double) { (core.*method)(arguments...); });
    };
}

template <class Machine, class Class>
void bind_sessions(Class& bound) {
    const auto session = py::arg("session");
    bound.def("begin", changing<Machine>(&Core::begin), session);
    bound.def("speculate", changing<Machine>(&Core::speculate), session);
    bound.def("finish", changing<Machine>(&Core::finish), session);
    bound.def("hold", changing<Machine>(&Core::hold), session, py::arg("held"));
    bound.def("cancel", changing<Machine>(&Core::cancel), session);
    bound.def("revive", changing<Machine>(&Core::revive), session);
    bound.def("close", changing<Machine>(&Core::close), session);
    bound.def(
        "open",
        [](Machine& machine, const py::object& failed, double run_ahead) {
            Failed callback = listener<Machine>(failed);
            SessionId id = 0;
            change(machine, [&](Core& core, double) { id = core.open(std::move(callback), run_ahead); });
            return id;
        },
        py::arg("failed") = py::none(), py::arg("run_ahead") = kNever);
    bound.def(
        "submit",
        [](Machine& machine, SessionId id, size_t stage, py::object payload, const std::vector<TaskId>& after,
           int64_t key) {
            Payload kept = hold(std::move(payload));
            TaskId task = 0;
            change(machine, [&](Core& core, double) { task = core.submit(id, stage, std::move(kept), after, key); });
            return task;
        },
        session, py::arg("stage"), py::arg("payload"), py::arg("after") = std::vector<TaskId>(), py::arg("key") = 0);
    bound.def(
        "delivered",
        [](Machine& machine, SessionId id, double seconds) {
            change(machine, [&](Core& core, double now) { core.delivered(id, seconds, now); });
        },
        session, py::arg("seconds"));
    bound.def(
        "lead",
        [](const Machine& machine, SessionId id) {
            return read(machine, [&](const Core& core, double now) { return core.lead(id, now); });
        },
        session);
    bound.def(
        "should_preempt",
        [](const Machine& machine, size_t stage) {
            return read(machine, [&](const Core& core, double now) { return core.should_preempt(stage, now); });
        },
        py::arg("stage"));
    bound.def("counts", [](const Machine& machine) {
        const Counts counts = read(machine, [](const Core& core, double) { return core.counts(); });
        return std::make_tuple(counts.sessions, counts.queued, counts.running);
    });
    bound.def("speculation", [](const Machine& machine) {
        const Speculation done = read(machine, [](const Core& core, double) { return core.speculation(); });
        return std::make_tuple(done.calls, done.delayed, done.longest);
    });
    bound.def(
        "drained",
        [](Machine& machine, SessionId id, std::optional<double> timeout) {
            return drained(machine, id, timeout.value_or(kNever));
        },
        session, py::arg("timeout") = py::none());
    bound.def("now", &Machine::now);
    bound.def("shutdown", [](Machine& machine) { shut_down(machine); });
    bound.def("__enter__", [](py::object self) { return self; });
    bound.def("__exit__", [](Machine& machine, const py::args&) { shut_down(machine); });
}

}  // namespace

void bind_scheduler(py::module_& module) {
    const auto error = py::register_exception<SchedulerError>(module, "SchedulerError", PyExc_RuntimeError);
    py::register_exception<SessionCancelled>(module, "SessionCancelledError", error);
    py::register_exception<SchedulerClosed>(module, "SchedulerClosedError", error);

    py::class_<PyStage>(module, "Stage")
        .def(py::init([](std::string name, py::object run, size_t max_batch, int priority) {
                 if (!PyCallable_Check(run.ptr())) throw py::type_error("a stage's run must be callable");
                 if (max_batch == 0) throw py::value_error("max_batch must be at least 1");
                 return PyStage{std::move(name), hold(std::move(run)), {max_batch, priority}};
             }),
             py::arg("name"), py::arg("run"), py::arg("max_batch") = 1, py::arg("priority") = 0);

    py::class_<Scheduler, std::shared_ptr<Scheduler>> scheduler(module, "Scheduler");
    scheduler.def(py::init(&make_scheduler), py::arg("stages"), py::arg("width") = py::none(),
                  py::arg("order") = "deadline");
    bind_sessions<Scheduler>(scheduler);

    py::class_<Simulation> simulation(module, "Simulation");
    simulation.def(py::init(&make_simulation), py::arg("stages"), py::arg("cost"), py::arg("width") = py::none(),
                   py::arg("order") = "deadline");
    bind_sessions<Simulation>(simulation);
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
