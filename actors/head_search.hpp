// Which addresses a node asks when it looks for the head that leads: those it was started with, and
// those at which other heads stand by, as the last head it was in said. Pure: no link, no clock.
#pragma once

#include "runtime/result.hpp"

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::actors {

inline constexpr std::size_t heads_asked_max = 64;

// "A:7000,B:7000": each is an address, none stands there twice.
result<std::vector<std::string>> parse_heads(std::string_view text);

class head_search {
 public:
  explicit head_search(std::vector<std::string> given = {}) : given_(std::move(given)) {}

  // What is asked, all at once: given ones first.
  std::vector<std::string> addresses() const;
  // The head that it is in now is at `in`, and others stand by there: what was told before is
  // forgotten.
  void told(const std::string& in, std::vector<std::string> others);

 private:
  std::vector<std::string> given_;
  std::vector<std::string> told_;
};

// Why a round found no head: each address with its reason.
std::string nobody_leads(const std::vector<std::pair<std::string, std::string>>& refusals);

}  // namespace tandem::actors
