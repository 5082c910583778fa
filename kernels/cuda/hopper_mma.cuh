// What a product on Hopper asks of the chip: barriers that count bytes, copies of boxes of a table
// into shared memory, and wgmma over 64 rows, for sixteen-bit numbers that lie in lines of 128
// swizzled bytes (PTX ISA 8.0, "Asynchronous Warpgroup Level Matrix Instructions").
#pragma once

#include <cuda.h>

#include <cstdint>

namespace tandem::kernels::cuda {

// Only code for exactly this chip may use it; kernels for others trap.
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define TANDEM_HOPPER 1
#endif

#ifdef TANDEM_HOPPER
__device__ inline void open_barrier(unsigned barrier, unsigned arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
__device__ inline void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ inline void expect_bytes(unsigned barrier, unsigned bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
__device__ inline void arrive(unsigned barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// Until the phase of this parity is over.
__device__ inline void wait_for(unsigned barrier, unsigned parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra over;\n"
      "bra again;\n"
      "over:\n"
      "}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}
// The box of `map` whose first number stands at (column, row); what lies outside is zero.
__device__ inline void bring_box(unsigned to, const CUtensorMap& map, int column, int row,
                                 unsigned barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, "
      "%4}], [%2];" ::"r"(to),
      "l"(&map), "r"(barrier), "r"(column), "r"(row)
      : "memory");
}
// Likewise of three dimensions.
__device__ inline void bring_box(unsigned to, const CUtensorMap& map, int inner, int middle,
                                 int outer, unsigned barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, "
      "%4, %5}], [%2];" ::"r"(to),
      "l"(&map), "r"(barrier), "r"(inner), "r"(middle), "r"(outer)
      : "memory");
}
// What ordinary stores of this thread left in shared memory is seen by wgmma and copies.
__device__ inline void show_stores() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
// A ring of stages as one thread goes round it.
template <int Stages>
struct ring_place {
  int stage = 0;
  unsigned parity = 0;
  __device__ void next() {
    if (++stage == Stages) {
      stage = 0;
      parity ^= 1U;
    }
  }
};

// The 128 threads of a warpgroup; `name` is its own.
__device__ inline void meet(int name) { asm volatile("bar.sync %0, 128;" ::"r"(name) : "memory"); }

__device__ inline void begin_multiplying() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ inline void close_multiplying() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int Left>
__device__ inline void wait_multiplied() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Left) : "memory");
}

// A warpgroup gives registers back, or takes what others gave: so many a thread from here on.
template <int Registers>
__device__ inline void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Registers));
}
template <int Registers>
__device__ inline void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Registers));
}

// Registers that products write are not read or written by other code across this point.
template <int N>
__device__ inline void settle(float (&d)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

// How wgmma finds an operand in boxes of lines of 128 bytes. Lines along the inner side: eights of
// lines are 1,024 bytes apart. Lines along rows or columns (turned): a line is 64 of them at one
// inner place; eights of places are 1,024 bytes apart, the next 64 `box` bytes.
__device__ inline std::uint64_t operand_at(unsigned address, unsigned box) {
  constexpr std::uint64_t eight_lines = std::uint64_t{1024 >> 4} << 32U;
  constexpr std::uint64_t swizzled_128 = std::uint64_t{1} << 62U;
  return (address & 0x3FFFFU) >> 4U | std::uint64_t{box >> 4U} << 16U | eight_lines | swizzled_128;
}

// sums += a b, or = a b where `onto` is 0; a has 64 rows and 16 inner places, b N columns. A thread
// has of row 16 * warp + lane / 4 + 8 * (i / 2 % 2), column 8 * (i / 4) + lane % 4 * 2 + i % 2.
// clang-format off
#define TANDEM_8(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), \
                       "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define TANDEM_32(d, i) TANDEM_8(d, i), TANDEM_8(d, i + 8), TANDEM_8(d, i + 16), TANDEM_8(d, i + 24)
#define TANDEM_NAMES_64 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define TANDEM_NAMES_96 TANDEM_NAMES_64 ", " \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define TANDEM_NAMES_128 TANDEM_NAMES_96 ", " \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
  "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define TANDEM_WGMMA(n, names, a_name, b_name, onto_name, a_turn_name, b_turn_name, ...) \
  asm volatile( \
      "{\n.reg .pred adds;\nsetp.ne.b32 adds, " onto_name ", 0;\n" \
      "wgmma.mma_async.sync.aligned.m64n" n "k16.f32.bf16.bf16 {" names "}, " a_name ", " b_name \
      ", adds, 1, 1, " a_turn_name ", " b_turn_name ";\n}" \
      : __VA_ARGS__ \
      : "l"(a), "l"(b), "r"(onto), "n"(ATurned ? 1 : 0), "n"(BTurned ? 1 : 0))

template <bool ATurned, bool BTurned>
__device__ inline void multiply_64(float (&d)[64], std::uint64_t a, std::uint64_t b, int onto) {
  TANDEM_WGMMA("128", TANDEM_NAMES_64, "%64", "%65", "%66", "%67", "%68",
               TANDEM_32(d, 0), TANDEM_32(d, 32));
}
template <bool ATurned, bool BTurned>
__device__ inline void multiply_64(float (&d)[96], std::uint64_t a, std::uint64_t b, int onto) {
  TANDEM_WGMMA("192", TANDEM_NAMES_96, "%96", "%97", "%98", "%99", "%100",
               TANDEM_32(d, 0), TANDEM_32(d, 32), TANDEM_32(d, 64));
}
template <bool ATurned, bool BTurned>
__device__ inline void multiply_64(float (&d)[128], std::uint64_t a, std::uint64_t b, int onto) {
  TANDEM_WGMMA("256", TANDEM_NAMES_128, "%128", "%129", "%130", "%131", "%132",
               TANDEM_32(d, 0), TANDEM_32(d, 32), TANDEM_32(d, 64), TANDEM_32(d, 96));
}

// The same with the first operand in registers, as mma.sync's: rows lane / 4 and eight further of
// the warp's sixteen. The second one's lines run along the inner side. Sixteen bits: f16 or bf16.
#define TANDEM_NAMES_8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define TANDEM_NAMES_16 TANDEM_NAMES_8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define TANDEM_NAMES_32 TANDEM_NAMES_16 \
  ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define TANDEM_WGMMA_OF(n, type, names, a_names, b_name, onto_name, ...) \
  asm volatile( \
      "{\n.reg .pred adds;\nsetp.ne.b32 adds, " onto_name ", 0;\n" \
      "wgmma.mma_async.sync.aligned.m64n" n "k16.f32." type "." type " {" names "}, {" a_names "}, " \
      b_name ", adds, 1, 1, 0;\n}" \
      : __VA_ARGS__ \
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b), "r"(onto))
#define TANDEM_MULTIPLY_64(size, n, names, a_names, b_name, onto_name, ...) \
  template <bool Half> \
  __device__ inline void multiply_64(float (&d)[size], std::uint32_t a0, std::uint32_t a1, \
                                     std::uint32_t a2, std::uint32_t a3, std::uint64_t b, \
                                     int onto) { \
    if constexpr (Half) \
      TANDEM_WGMMA_OF(n, "f16", names, a_names, b_name, onto_name, __VA_ARGS__); \
    else \
      TANDEM_WGMMA_OF(n, "bf16", names, a_names, b_name, onto_name, __VA_ARGS__); \
  }
TANDEM_MULTIPLY_64(8, "16", TANDEM_NAMES_8, "%8, %9, %10, %11", "%12", "%13", TANDEM_8(d, 0))
TANDEM_MULTIPLY_64(16, "32", TANDEM_NAMES_16, "%16, %17, %18, %19", "%20", "%21", TANDEM_8(d, 0),
                   TANDEM_8(d, 8))
TANDEM_MULTIPLY_64(32, "64", TANDEM_NAMES_32, "%32, %33, %34, %35", "%36", "%37", TANDEM_32(d, 0))
TANDEM_MULTIPLY_64(64, "128", TANDEM_NAMES_64, "%64, %65, %66, %67", "%68", "%69",
                   TANDEM_32(d, 0), TANDEM_32(d, 32))
// clang-format on
#undef TANDEM_MULTIPLY_64
#undef TANDEM_WGMMA_OF
#undef TANDEM_NAMES_32
#undef TANDEM_NAMES_16
#undef TANDEM_NAMES_8
#undef TANDEM_WGMMA
#undef TANDEM_NAMES_128
#undef TANDEM_NAMES_96
#undef TANDEM_NAMES_64
#undef TANDEM_32
#undef TANDEM_8
#endif

}  // namespace tandem::kernels::cuda
