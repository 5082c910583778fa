#include "runtime/transport/data_lane.hpp"

#include "runtime/log.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace tandem::transport {

namespace {

constexpr unsigned frames_id = 1;  // of the active messages
constexpr std::chrono::seconds gives_up_after{1};

ucp_dt_iov_t piece_of(void* data, std::size_t size) { return {data, size}; }

}  // namespace

connection::connection(control_lane with, bool& reap_due)
    : lane(std::move(with)), reap_due_(reap_due) {}
connection::~connection() = default;

result<std::unique_ptr<data_lane>> data_lane::open(std::shared_ptr<ucx_context> context,
                                                   std::shared_ptr<buffer_pool> pool,
                                                   const fabric_options& options,
                                                   const hooks& calls) {
  using own_ptr = std::unique_ptr<data_lane>;
  auto made = own_ptr(new data_lane(std::move(context), std::move(pool), options, calls));
  if (auto opened = made->open_worker(); !opened) return opened.error();
  return made;
}

data_lane::data_lane(std::shared_ptr<ucx_context> context, std::shared_ptr<buffer_pool> pool,
                     const fabric_options& options, const hooks& calls)
    : context_(std::move(context)),
      pool_(std::move(pool)),
      bounds_{options.message_bytes_max, options.tensor_bytes_max},
      // What goes may fill the window of its sender twice, and one frame be larger than that.
      arriving_max_(2 * options.window_bytes + options.message_bytes_max +
                    options.tensor_bytes_max),
      calls_(calls) {}

result<void> data_lane::open_worker() {
  ucp_worker_params_t params{};
  params.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  params.thread_mode = UCS_THREAD_MODE_SERIALIZED;
  if (const auto rc = ucp_worker_create(context_->handle(), &params, &worker_); rc != UCS_OK)
    return ucx_error("no worker", rc);
  if (const auto rc = ucp_worker_get_efd(worker_, &event_fd_); rc != UCS_OK)
    return ucx_error("no event descriptor: these transports cannot wake a sleeper", rc);
  ucp_worker_attr_t attr{};
  attr.field_mask = UCP_WORKER_ATTR_FIELD_MAX_AM_HEADER;
  if (const auto rc = ucp_worker_query(worker_, &attr); rc != UCS_OK)
    return ucx_error("asking the worker", rc);
  header_max_ = attr.max_am_header;
  if (header_max_ < frame_header_bytes + 8 * max_attachments)
    return error{errc::unsupported,
                 fmt::format("UCX: headers of {} bytes are too small", header_max_), ""};
  ucp_am_handler_param_t handler{};
  handler.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS |
                       UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG;
  handler.id = frames_id;
  handler.flags = UCP_AM_FLAG_WHOLE_MSG;
  handler.cb = &data_lane::on_message;
  handler.arg = this;
  if (const auto rc = ucp_worker_set_am_recv_handler(worker_, &handler); rc != UCS_OK)
    return ucx_error("no handler for frames", rc);
  ucp_address_t* where = nullptr;
  std::size_t size = 0;
  if (const auto rc = ucp_worker_get_address(worker_, &where, &size); rc != UCS_OK)
    return ucx_error("the worker has no address", rc);
  worker_address_.resize(size);
  std::memcpy(worker_address_.data(), where, size);
  ucp_worker_release_address(worker_, where);
  if (size > max_worker_address_bytes)
    return error{errc::unsupported,
                 fmt::format("UCX: a worker address of {} bytes, {} are allowed: name the devices",
                             size, max_worker_address_bytes),
                 "devices"};
  return {};
}

data_lane::~data_lane() {
  if (worker_ != nullptr) ucp_worker_destroy(worker_);
}

result<void> data_lane::connect(connection& to) {
  ucp_ep_params_t params{};
  params.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                      UCP_EP_PARAM_FIELD_ERR_HANDLER;
  const bytes& where = to.shake->peer_worker_address();
  // UCX declares the type and leaves it undefined.
  params.address = static_cast<const ucp_address_t*>(static_cast<const void*>(where.data()));
  params.err_mode = UCP_ERR_HANDLING_MODE_PEER;
  params.err_handler = {&data_lane::on_error, &to};
  if (const auto rc = ucp_ep_create(worker_, &params, &to.endpoint); rc != UCS_OK) {
    to.endpoint = nullptr;
    return ucx_error("no transport in common with it", rc);
  }
  on_ = &to;
  return {};
}

void data_lane::on_error(void* connection_of, ucp_ep_h, ucs_status_t status) {
  static_cast<connection*>(connection_of)->fail(ucx_error("its endpoint failed", status));
}

// --- out ----------------------------------------------------------------------------------------

void data_lane::send(outgoing made) {
  connection& to = *on_;
  going_.push_front(std::move(made));
  outgoing& frame = going_.front();
  frame.place = going_.begin();
  frame.home = this;

  frame_header header;
  header.token = to.shake->token_out();
  header.sequence = to.frames_out++;
  header.body_bytes = static_cast<std::uint32_t>(frame.body.size());
  for (const auto& one : frame.attachments) header.attachment_bytes.push_back(one->size());
  const std::size_t fixed = frame_header_bytes + 8 * frame.attachments.size();
  header.body_in_header = !frame.attachments.empty() && fixed + frame.body.size() <= header_max_;
  frame.header.reserve(fixed + (header.body_in_header ? frame.body.size() : 0));
  encode_frame_header(header, frame.header);
  if (header.body_in_header)
    frame.header.insert(frame.header.end(), frame.body.begin(), frame.body.end());
  else
    frame.pieces.push_back(piece_of(frame.body.data(), frame.body.size()));
  for (const auto& one : frame.attachments)
    frame.pieces.push_back(piece_of(one->data(), one->size()));

  ucp_request_param_t param{};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
  param.cb.send = &data_lane::on_sent;
  param.user_data = &frame;
  const void* data = frame.pieces.front().buffer;
  std::size_t count = frame.pieces.front().length;
  if (frame.pieces.size() > 1) {
    param.op_attr_mask |= UCP_OP_ATTR_FIELD_DATATYPE;
    param.datatype = ucp_dt_make_iov();
    data = frame.pieces.data();
    count = frame.pieces.size();
  }
  void* const request = ucp_am_send_nbx(to.endpoint, frames_id, frame.header.data(),
                                        frame.header.size(), data, count, &param);
  if (UCS_PTR_IS_PTR(request)) return;  // on_sent follows
  if (UCS_PTR_IS_ERR(request)) to.fail(ucx_error("sending failed", UCS_PTR_STATUS(request)));
  finish(frame);
}

void data_lane::on_sent(void* request, ucs_status_t, void* frame) {
  ucp_request_free(request);
  auto& sent = *static_cast<outgoing*>(frame);
  sent.home->finish(sent);
}

void data_lane::finish(outgoing& frame) {
  frame.to->in_flight_.fetch_sub(frame.charged);
  going_.erase(frame.place);
}

// --- in -----------------------------------------------------------------------------------------

ucs_status_t data_lane::on_message(void* self, const void* header, std::size_t header_bytes,
                                   void* data, std::size_t data_bytes,
                                   const ucp_am_recv_param_t* param) {
  const bool rendezvous = (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0;
  return static_cast<data_lane*>(self)->take({static_cast<const char*>(header), header_bytes}, data,
                                             data_bytes, rendezvous);
}

ucs_status_t data_lane::take(std::span<const char> header, void* data, std::size_t data_bytes,
                             bool rendezvous) {
  if (on_ == nullptr || wire_reader(header).number<std::uint64_t>() != on_->shake->token_in()) {
    ++unknown_frames_;
    return UCS_OK;
  }
  connection& from = *on_;
  if (from.failed || !calls_.accepts(from)) return UCS_OK;
  auto decoded = decode_frame_header(header, data_bytes, bounds_);
  if (!decoded) {
    from.fail({errc::bad_request, "it sent " + decoded.error().detail, ""});
    return UCS_OK;
  }
  if (decoded->header.sequence != from.frames_in) {
    from.fail({errc::bad_request,
               fmt::format("its frame {} came where {} was due", decoded->header.sequence,
                           from.frames_in),
               ""});
    return UCS_OK;
  }
  ++from.frames_in;
  const std::span<const char> eager(static_cast<const char*>(data), rendezvous ? 0 : data_bytes);
  if (!rendezvous && from.arriving.empty() && decoded->header.attachment_bytes.empty()) {
    from.frame_delivered();
    calls_.arrived(from, decoded->header.body_in_header ? decoded->body : eager, {});
    return UCS_OK;
  }
  const std::uint64_t size = header.size() + data_bytes;
  if (from.bytes_arriving + size > arriving_max_) {
    from.fail({errc::overloaded,
               fmt::format("{} bytes of it wait behind a tensor that finds no room, {} are allowed",
                           from.bytes_arriving, arriving_max_),
               ""});
    return UCS_OK;
  }
  from.bytes_arriving += size;
  coming_.emplace_front();
  incoming& frame = coming_.front();
  frame.place = coming_.begin();
  frame.home = this;
  frame.from = &from;
  frame.size = size;
  frame.header = std::move(decoded->header);
  frame.body.assign(decoded->body.begin(), decoded->body.end());
  from.arriving.push_back(&frame);
  if (!rendezvous) {
    copy_eager(frame, eager);
    deliver();
    return UCS_OK;
  }
  frame.descriptor = data;
  // Those that wait for memory already come first.
  const bool behind = waiting_ > 0 && !frame.header.attachment_bytes.empty();
  if (behind || !start_receive(frame)) {
    frame.now = incoming::state::no_memory;
    ++waiting_;
    calls_.needs_memory();
  }
  deliver();
  return UCS_INPROGRESS;
}

// Small and here already: the heap will do for its buffers.
void data_lane::copy_eager(incoming& frame, std::span<const char> data) {
  if (!frame.header.body_in_header) {
    const auto body = data.first(frame.header.body_bytes);
    frame.body.assign(body.begin(), body.end());
    data = data.subspan(body.size());
  }
  for (const auto size : frame.header.attachment_bytes) {
    auto taken = pool_->take(size);
    auto into = taken ? *std::move(taken) : buffer_pool::take_small(size);
    if (size > 0) std::memcpy(into->data(), data.data(), size);
    data = data.subspan(size);
    frame.attachments.push_back(std::move(into));
  }
  frame.now = incoming::state::complete;
}

// False: the pool has no room now. (A fault of UCX breaks the frame instead.)
bool data_lane::start_receive(incoming& frame) {
  auto taken = pool_->take_all(frame.header.attachment_bytes);
  if (!taken) {
    if (taken.error().code != errc::no_memory) frame.from->fail(taken.error());
    return false;
  }
  frame.attachments = *std::move(taken);
  if (!frame.header.body_in_header) {
    frame.body.resize(frame.header.body_bytes);
    frame.pieces.push_back(piece_of(frame.body.data(), frame.body.size()));
  }
  for (const auto& one : frame.attachments)
    frame.pieces.push_back(piece_of(one->data(), one->size()));

  ucp_request_param_t param{};
  param.op_attr_mask =
      UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FLAG_NO_IMM_CMPL;
  param.cb.recv_am = &data_lane::on_received;
  param.user_data = &frame;
  void* into = frame.pieces.front().buffer;
  std::size_t count = frame.pieces.front().length;
  if (frame.pieces.size() > 1) {
    param.op_attr_mask |= UCP_OP_ATTR_FIELD_DATATYPE;
    param.datatype = ucp_dt_make_iov();
    into = frame.pieces.data();
    count = frame.pieces.size();
  }
  frame.now = incoming::state::receiving;
  void* const request =
      ucp_am_recv_data_nbx(worker_, std::exchange(frame.descriptor, nullptr), into, count, &param);
  if (UCS_PTR_IS_ERR(request)) {
    frame.now = incoming::state::broken;
    frame.from->fail(ucx_error("receiving failed", UCS_PTR_STATUS(request)));
  } else if (!UCS_PTR_IS_PTR(request)) {
    frame.now = incoming::state::complete;
  } else {
    ++receiving_;
  }
  return true;
}

void data_lane::on_received(void* request, ucs_status_t status, std::size_t, void* frame) {
  ucp_request_free(request);
  auto& got = *static_cast<incoming*>(frame);
  --got.home->receiving_;
  if (got.from == nullptr) {  // its peer went meanwhile
    got.home->coming_.erase(got.place);
    return;
  }
  got.now = status == UCS_OK ? incoming::state::complete : incoming::state::broken;
  if (status != UCS_OK) got.from->fail(ucx_error("receiving failed", status));
  got.home->deliver();
}

void data_lane::deliver() {
  connection& from = *on_;
  while (!from.arriving.empty() && !from.failed &&
         from.arriving.front()->now == incoming::state::complete) {
    const auto place = from.arriving.front()->place;
    from.arriving.pop_front();
    from.bytes_arriving -= place->size;
    from.frame_delivered();
    calls_.arrived(from, place->body, std::move(place->attachments));
    coming_.erase(place);
  }
}

bool data_lane::retry_memory() {
  // The oldest first: they stand at the end. One that has begun may be delivered and gone at once.
  std::vector<incoming*> waiting;
  for (auto it = coming_.rbegin(); it != coming_.rend(); ++it)
    if (it->now == incoming::state::no_memory) waiting.push_back(&*it);
  for (auto* one : waiting) {
    if (on_->failed) return false;
    if (!start_receive(*one)) return !on_->failed;
    --waiting_;
    deliver();
  }
  return waiting_ > 0;
}

void data_lane::begin_flush() {
  if (on_ == nullptr || on_->endpoint == nullptr) return;
  ucp_request_param_t param{};
  void* const request = ucp_ep_flush_nbx(on_->endpoint, &param);
  if (UCS_PTR_IS_PTR(request)) flushing_ = request;
}

bool data_lane::flushed() {
  if (flushing_ == nullptr) return true;
  if (ucp_request_check_status(flushing_) == UCS_INPROGRESS) return false;
  ucp_request_free(std::exchange(flushing_, nullptr));
  return true;
}

void data_lane::disconnect() {
  given_up_ = steady::now();
  if (flushing_ != nullptr) ucp_request_free(std::exchange(flushing_, nullptr));
  if (on_ == nullptr) return;
  connection& from = *std::exchange(on_, nullptr);
  for (incoming* frame : from.arriving) {
    frame->from = nullptr;
    switch (frame->now) {
      case incoming::state::receiving:
        break;  // on_received drops it
      case incoming::state::no_memory:
        --waiting_;
        ucp_am_data_release(worker_, frame->descriptor);
        [[fallthrough]];
      case incoming::state::complete:
      case incoming::state::broken:
        coming_.erase(frame->place);
        break;
    }
  }
  from.arriving.clear();
  from.bytes_arriving = 0;
  ucp_request_param_t param{};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
  param.flags = UCP_EP_CLOSE_FLAG_FORCE;
  void* const request = ucp_ep_close_nbx(std::exchange(from.endpoint, nullptr), &param);
  if (UCS_PTR_IS_PTR(request)) closing_ = request;
}

bool data_lane::settle(steady::time_point now) {
  progress();
  if (closing_ != nullptr && ucp_request_check_status(closing_) != UCS_INPROGRESS)
    ucp_request_free(std::exchange(closing_, nullptr));
  if (clean()) return true;
  if (now - given_up_ < gives_up_after) return false;
  release_buffers();
  return true;
}

void data_lane::release_buffers() {
  for (auto& frame : going_) {
    frame.attachments.clear();
    frame.to->in_flight_.fetch_sub(std::exchange(frame.charged, 0));
  }
  for (auto& frame : coming_) frame.attachments.clear();
}

}  // namespace tandem::transport
