#include "kernels/cuda/nccl_library.hpp"

#include <dlfcn.h>

#include <array>

namespace tandem::kernels::cuda {
namespace {

// The oldest with all that is called here.
constexpr int oldest = NCCL_VERSION(2, 18, 0);
constexpr const char* advice = "install NCCL 2.18 or newer, or go on with one GPU for a model";

int major_of(int version) { return version / 10'000; }
std::string text_of(int version) {
  return std::to_string(major_of(version)) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100);
}

template <class Function>
bool find(void* library, const char* name, Function& function, std::string& missing) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  if (function == nullptr && missing.empty()) missing = name;
  return function != nullptr;
}

std::string find_all(void* library, nccl_functions& call) {
  std::string missing;
  find(library, "ncclGetVersion", call.get_version, missing);
  find(library, "ncclGetUniqueId", call.get_unique_id, missing);
  find(library, "ncclCommInitRankConfig", call.init_rank, missing);
  find(library, "ncclCommGetAsyncError", call.async_error, missing);
  find(library, "ncclCommFinalize", call.finalize, missing);
  find(library, "ncclCommDestroy", call.destroy, missing);
  find(library, "ncclCommAbort", call.abort, missing);
  find(library, "ncclGetErrorString", call.error_text, missing);
  find(library, "ncclGetLastError", call.last_error, missing);
  find(library, "ncclGroupStart", call.group_start, missing);
  find(library, "ncclGroupEnd", call.group_end, missing);
  find(library, "ncclAllGather", call.all_gather, missing);
  find(library, "ncclBroadcast", call.broadcast, missing);
  return missing;
}

}  // namespace

nccl_library open_nccl(std::span<const char* const> names) {
  nccl_library found;
  void* library = nullptr;
  for (const char* const name : names) {
    library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (library != nullptr) {
      found.facts.path = name;
      break;
    }
    if (found.facts.why_not.empty()) {
      const char* const why = dlerror();
      found.facts.why_not = std::string(why == nullptr ? name : why) + ": " + advice +
                            " (LD_LIBRARY_PATH is searched)";
    }
  }
  if (library == nullptr) return found;
  found.facts.why_not.clear();
  const std::string missing = find_all(library, found.call);
  if (found.call.get_version != nullptr) {
    Dl_info where{};
    if (dladdr(reinterpret_cast<void*>(found.call.get_version), &where) != 0 &&
        where.dli_fname != nullptr)
      found.facts.path = where.dli_fname;
  }
  const auto refuse = [&](const std::string& why) {
    found.facts.why_not = found.facts.path + " " + why + ": " + advice;
    dlclose(library);
    found.call = {};
    return found;
  };
  int version = 0;
  if (found.call.get_version == nullptr || found.call.get_version(&version) != ncclSuccess)
    return refuse("does not say its version");
  if (major_of(version) > NCCL_MAJOR)
    return refuse("is NCCL " + text_of(version) + ", this build knows " +
                  std::to_string(NCCL_MAJOR) + ".x alone");
  // Those before 2.9 count otherwise, and in smaller numbers.
  if (version < oldest) return refuse("is too old a version (" + std::to_string(version) + ")");
  if (!missing.empty()) return refuse("lacks " + missing);
  found.facts.version = text_of(version);
  return found;
}

const nccl_library& nccl() {
  static constexpr std::array names{"libnccl.so.2", "/usr/local/cuda/lib64/libnccl.so.2",
                                    "/usr/local/cuda/lib/libnccl.so.2"};
  static const nccl_library library = open_nccl(names);
  return library;
}

nccl_facts nccl_survey() { return nccl().facts; }

}  // namespace tandem::kernels::cuda
