// One request's answer. Any thread formats it into bytes here, under a lock; its session takes the
// bytes out on its own thread and puts them on the wire. So a chunk costs its maker one append,
// many chunks leave in one write, and a responder that outlives session and server stays harmless.
#pragma once

#include "gateway/http.hpp"

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

namespace tandem::gateway {

// What the request fixes about its answer.
struct answer_terms {
  bool http_1_0 = false;
  bool keep_alive = true;  // the client's wish
  bool head_only = false;  // HEAD
  std::string request_id;
  header_list headers;  // on every answer, whatever the handler says: CORS
  std::shared_ptr<const std::atomic<bool>> draining;  // true: say that this answer is the last
};

class answer final : public responder, public std::enable_shared_from_this<answer> {
 public:
  // A stream whose reader has so much waiting for it is cut off.
  static constexpr std::size_t unread_bytes_max = 1 << 20;

  // `wake` is called from any thread when a session that took everything has to look again.
  answer(answer_terms terms, std::function<void()> wake);

  const std::string& request_id() const { return terms_.request_id; }
  // The responder to give to a handler: dropped unanswered, it answers 500.
  std::shared_ptr<responder> handle();

  void send(http_response response) override;
  void begin(int status, std::string content_type, header_list headers) override;
  void write(std::string bytes) override;
  void end() override;
  void send_pieces(http_response head, std::uint64_t bytes, body_source source) override;
  void on_taken(std::function<void()> callback) override;
  void heartbeat(std::string bytes, std::string content_type) override;
  void on_gone(std::function<void()> callback) override;

  // The session's side.
  struct progress {
    std::size_t bytes = 0;    // appended by this call
    bool ended = false;       // nothing follows
    bool cut = false;         // cannot be completed: close the connection
    bool heartbeats = false;  // beats are wanted
    bool fill = false;        // call fill() off the connection's thread, once for each time told
    bool keep_alive = false;  // once ended: another request may follow
    int status = 0;
  };
  progress take(std::string& out);
  bool is_cut();  // also when nothing can be taken
  void beat();    // a heartbeat is due
  void fill();    // fetches the next piece from its source
  // Answers 500 or, when bytes are already out, cuts.
  void fail(std::string_view why);
  void expire();       // its deadline passed with nothing begun: 504
  void client_gone();  // no more is taken; the callback runs now
  void detach();       // as above without a callback: all was taken

 private:
  enum class phase { silent, beating, streaming, ended, gone };

  progress take_locked(std::string& out, std::function<void()>& taken);
  // With the lock held.
  void append_head(int status, std::string_view content_type, const header_list& headers,
                   const std::size_t* content_length);
  void append_chunk(std::string_view bytes);
  void finish();
  void send_locked(http_response response);
  void cut();
  void changed();  // wakes the session when it sleeps; only posts, so the lock may be held

  const answer_terms terms_;
  std::mutex mutex_;
  phase phase_ = phase::silent;
  bool attended_ = true;  // the session will look without being woken
  bool cut_ = false;
  bool chunked_ = false;
  bool keep_alive_ = false;
  int status_ = 0;
  std::string pending_;                  // formatted, not yet taken
  std::shared_ptr<body_source> source_;  // of send_pieces, while pieces are missing
  std::uint64_t source_bytes_left_ = 0;
  bool filling_ = false;
  std::string heartbeat_bytes_;
  std::string heartbeat_type_;
  std::function<void()> taken_callback_;
  std::function<void()> gone_callback_;
  std::function<void()> wake_;
};

}  // namespace tandem::gateway
