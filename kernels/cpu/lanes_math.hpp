// Functions over sixteen lanes, written once for all fast variants (`L` is a `lanes`). Every float
// step is spelled out: a compiler's own contraction could differ from tile to tile.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__clang__)
#define TANDEM_UNROLL _Pragma("clang loop unroll(full)")
#else
#define TANDEM_UNROLL _Pragma("GCC unroll 16")
#endif

namespace tandem::kernels::cpu {

template <class L, class T>
TANDEM_INLINE T load_at(const std::byte* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

// e^x by Cephes' expf: x = n ln 2 + f with |f| <= ln 2 / 2, a polynomial of degree six in f. About
// one unit in the last place; arguments outside of [-87, 88] are taken as those, NaN stays.
template <class L>
TANDEM_INLINE typename L::floats exponential(typename L::floats x) {
  x = L::smaller(L::all(88.0F), L::greater(L::all(-87.0F), x));
  const auto n = L::round(L::multiply(x, L::all(1.44269504F)));
  auto f = L::fma(n, L::all(-0.693359375F), x);
  f = L::fma(n, L::all(2.12194440e-4F), f);
  auto p = L::all(1.9875691500e-4F);
  p = L::fma(p, f, L::all(1.3981999507e-3F));
  p = L::fma(p, f, L::all(8.3334519073e-3F));
  p = L::fma(p, f, L::all(4.1665795894e-2F));
  p = L::fma(p, f, L::all(1.6666665459e-1F));
  p = L::fma(p, f, L::all(5.0000001201e-1F));
  p = L::fma(p, L::multiply(f, f), L::add(f, L::all(1.0F)));
  return L::multiply(p, L::power_of_two(n));
}

// Cephes' tanhf: a polynomial near zero, where 1 - 2 / (e^2x + 1) would lose digits.
template <class L>
TANDEM_INLINE typename L::floats hyperbolic_tangent(typename L::floats x) {
  const auto square = L::multiply(x, x);
  auto p = L::all(-5.70498872745e-3F);
  p = L::fma(p, square, L::all(2.06390887954e-2F));
  p = L::fma(p, square, L::all(-5.37397155531e-2F));
  p = L::fma(p, square, L::all(1.33314422036e-1F));
  p = L::fma(p, square, L::all(-3.33332819422e-1F));
  p = L::fma(L::multiply(p, square), x, x);
  const auto one = L::all(1.0F);
  const auto grown = exponential<L>(L::add(x, x));
  const auto far = L::subtract(one, L::divide(L::all(2.0F), L::add(grown, one)));
  return L::where_less(L::magnitude(x), L::all(0.625F), p, far);
}

template <class L>
TANDEM_INLINE typename L::floats silu(typename L::floats x) {
  const auto falling = exponential<L>(L::subtract(L::zero(), x));
  return L::divide(x, L::add(L::all(1.0F), falling));
}

// 0.5 x (1 + tanh u) = x / (1 + e^-2u): no cancellation for negative x.
template <class L>
TANDEM_INLINE typename L::floats gelu_tanh(typename L::floats x) {
  const auto cube = L::multiply(L::multiply(x, x), x);
  const auto u = L::multiply(L::all(0.7978845608F), L::fma(cube, L::all(0.044715F), x));
  const auto falling = exponential<L>(L::multiply(L::all(-2.0F), u));
  return L::divide(x, L::add(L::all(1.0F), falling));
}

}  // namespace tandem::kernels::cpu
