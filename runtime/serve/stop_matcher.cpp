#include "runtime/serve/stop_matcher.hpp"

#include <algorithm>
#include <utility>

namespace tandem::serve {

stop_matcher::stop_matcher(std::vector<std::string> stops, bool include_stop)
    : include_stop_(include_stop) {
  for (std::string& stop : stops) {
    if (stop.empty()) continue;
    pattern p;
    p.text = std::move(stop);
    p.fallback.assign(p.text.size() + 1, 0);
    for (std::size_t i = 1, k = 0; i < p.text.size(); ++i) {
      while (k > 0 && p.text[i] != p.text[k]) k = p.fallback[k];
      if (p.text[i] == p.text[k]) ++k;
      p.fallback[i + 1] = k;
    }
    patterns_.push_back(std::move(p));
  }
}

bool stop_matcher::pattern::advance(char c) {
  while (matched > 0 && text[matched] != c) matched = fallback[matched];
  if (text[matched] == c) ++matched;
  return matched == text.size();
}

stop_matcher::piece stop_matcher::add(std::string_view text) {
  for (const char c : text) {
    held_.push_back(c);
    const pattern* found = nullptr;
    for (pattern& p : patterns_) {
      if (p.advance(c) && (found == nullptr || p.text.size() > found->text.size())) found = &p;
    }
    if (found == nullptr) continue;
    if (!include_stop_) held_.resize(held_.size() - found->text.size());
    return {std::exchange(held_, {}), found->text};
  }
  std::size_t undecided = 0;
  for (const pattern& p : patterns_) undecided = std::max(undecided, p.matched);
  piece sent;
  sent.text = held_.substr(0, held_.size() - undecided);
  held_.erase(0, sent.text.size());
  return sent;
}

std::string stop_matcher::pass(std::string_view text) {
  std::string sent = finish();
  sent += text;
  return sent;
}

std::string stop_matcher::finish() {
  for (pattern& p : patterns_) p.matched = 0;
  return std::exchange(held_, {});
}

}  // namespace tandem::serve
