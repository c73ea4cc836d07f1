// A runtime's own streams, events and graphs, told from another runtime's.
#pragma once

#include <stdexcept>

namespace omni2 {

// `thing` as the type in which this runtime made it; std::invalid_argument if another runtime made it.
template <class Own, class Base>
Own& own(Base& thing) {
    if (Own* found = dynamic_cast<Own*>(&thing)) return *found;
    throw std::invalid_argument("a stream, event or graph is used with the runtime that made it, not with another");
}

}  // namespace omni2
