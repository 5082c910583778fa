#include "runtime/train/resume.hpp"

#include "runtime/train/checkpoint.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace tandem::train {

result<void> check_layout(const std::filesystem::path& checkpoint, const checkpoint_facts& facts,
                          const std::vector<parameter>& wants) {
  const auto& has = facts.layout;
  const auto same = [](const parameter& a, const parameter& b) {
    return a.name == b.name && a.first_float == b.first_float && a.floats == b.floats;
  };
  const auto [in_file, in_memory] =
      std::mismatch(has.begin(), has.end(), wants.begin(), wants.end(), same);
  if (in_file == has.end() && in_memory == wants.end()) return {};
  const auto named = [](auto at, auto end) {
    return at == end ? std::string("nothing")
                     : fmt::format("'{}' of {} numbers", at->name, at->floats);
  };
  return error{
      errc::bad_file,
      fmt::format("{}: it has {} where this job has {}: another model, method, rank or "
                  "other targets wrote it",
                  checkpoint.string(), named(in_file, has.end()), named(in_memory, wants.end())),
      {}};
}

result<std::int64_t> resume_from(kernels::backend& device, const std::filesystem::path& checkpoint,
                                 device_memory& memory, const pause_point& pause) {
  const auto facts = read_checkpoint_facts(checkpoint);
  if (!facts) return facts.error();
  if (auto same = check_layout(checkpoint, *facts, memory.group.parameters); !same)
    return same.error();
  const put_bytes put = [&device](std::span<const std::byte> from, std::byte* to) {
    device.write(from, to);
  };
  if (auto read = read_parameters(checkpoint, memory.parameters, pause, put); !read)
    return read.error();
  if (auto read = read_moments(checkpoint, memory.own.begin, memory.first_moments.floats,
                               memory.second_moments.floats, pause, put);
      !read)
    return read.error();
  return facts->step;
}

}  // namespace tandem::train
