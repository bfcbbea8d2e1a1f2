// function_ref.h - a callable borrowed for one call: two words, never allocates (std::function may).
#pragma once

#include <memory>
#include <type_traits>

namespace minillm {

template <typename Signature>
class FunctionRef;

/// Empty, or a reference to a callable that must outlive it: a lambda written as an argument does.
template <typename R, typename... Args>
class FunctionRef<R(Args...)> {
 public:
  FunctionRef() = default;
  template <typename F>
  requires(!std::is_same_v<std::remove_cvref_t<F>, FunctionRef> && std::is_invocable_r_v<R, F&, Args...>) FunctionRef(F&& f)
  noexcept  // Not explicit: a lambda is what callers write.
      : object_(const_cast<void*>(static_cast<const void*>(std::addressof(f)))),
        call_([](void* object, Args... args) -> R { return (*static_cast<std::remove_reference_t<F>*>(object))(args...); }) {}

  explicit operator bool() const noexcept { return call_ != nullptr; }
  R operator()(Args... args) const { return call_(object_, args...); }

 private:
  void* object_ = nullptr;
  R (*call_)(void*, Args...) = nullptr;
};

}  // namespace minillm
