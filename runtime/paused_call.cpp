#include "runtime/paused_call.hpp"

#include <boost/context/protected_fixedsize_stack.hpp>

#include <utility>

namespace tandem {
namespace {

namespace context = boost::context;

constexpr std::size_t stack_bytes = std::size_t{1} << 20U;  // touched as far as it is used

}  // namespace

paused_call::paused_call(std::function<void(const pause_point&)> work,
                         std::chrono::nanoseconds piece)
    : piece_(piece) {
  call_ = context::fiber(std::allocator_arg, context::protected_fixedsize_stack(stack_bytes),
                         [this, work = std::move(work)](context::fiber&& caller) {
                           caller_ = std::move(caller);
                           const auto pause = [this] {
                             if (std::chrono::steady_clock::now() - resumed_ >= piece_)
                               caller_ = std::move(caller_).resume();
                           };
                           try {
                             work(pause);
                           } catch (const context::detail::forced_unwind&) {
                             throw;
                           } catch (...) {
                             thrown_ = std::current_exception();
                           }
                           return std::move(caller_);
                         });
}

paused_call::~paused_call() = default;

bool paused_call::advance() {
  if (!call_) return false;
  resumed_ = std::chrono::steady_clock::now();
  call_ = std::move(call_).resume();
  if (thrown_) std::rethrow_exception(std::exchange(thrown_, nullptr));
  return static_cast<bool>(call_);
}

}  // namespace tandem
