// Memory for the program tandem-sim: everything in it runs on one thread and is freed soon, so a
// block that is free goes to a list of its size and stays there. A sixth of the program's time went
// to malloc and free before. (Lists are of a thread: another thread's are its own.)
#include <array>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace {

constexpr std::size_t grain = 32;
constexpr std::size_t sizes = 32;  // up to 1,024 bytes, the head included
constexpr std::size_t slab = std::size_t{1} << 18U;

// Before each block: which list it belongs to; `sizes`: to malloc.
struct alignas(std::max_align_t) head {
  std::size_t list;
  head* next;
};

struct lists {
  std::array<head*, sizes> free{};
  std::byte* begin = nullptr;
  std::byte* end = nullptr;
};
thread_local lists mine;

head* fresh(std::size_t list) {
  const std::size_t bytes = (list + 1) * grain;
  if (static_cast<std::size_t>(mine.end - mine.begin) < bytes) {
    auto* memory = static_cast<std::byte*>(std::malloc(slab));
    if (memory == nullptr) throw std::bad_alloc();
    mine.begin = memory;
    mine.end = memory + slab;
  }
  auto* made = ::new (mine.begin) head{list, nullptr};
  mine.begin += bytes;
  return made;
}

}  // namespace

void* operator new(std::size_t bytes) {
  const std::size_t list = (bytes + sizeof(head) - 1) / grain;
  if (list >= sizes) {
    auto* memory = std::malloc(sizeof(head) + bytes);
    if (memory == nullptr) throw std::bad_alloc();
    return ::new (memory) head{sizes, nullptr} + 1;
  }
  head* block = mine.free[list];
  if (block == nullptr) return fresh(list) + 1;
  mine.free[list] = block->next;
  return block + 1;
}

void operator delete(void* memory) noexcept {
  if (memory == nullptr) return;
  auto* block = static_cast<head*>(memory) - 1;
  if (block->list >= sizes) return std::free(block);
  block->next = mine.free[block->list];
  mine.free[block->list] = block;
}

void operator delete(void* memory, std::size_t) noexcept { operator delete(memory); }
