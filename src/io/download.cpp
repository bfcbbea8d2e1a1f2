// download.cpp - retries, resuming, and the checks that make a download whole.
//   PATH.part          the bytes so far
//   PATH.part.from     two lines: the ETag that the server gave for them, and the SHA-256 that they should end up with
#include "io/download.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <optional>
#include <thread>
#include <utility>

#include "base/bytes.h"
#include "io/mapped_file.h"
#include "io/part_file.h"
#include "io/printable.h"
#include "io/transfer.h"
#include "minillm/error.h"

namespace minillm {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void refuse_status(const std::string& url, const Response& response) {
  std::string said = response.header("x-error-message");
  if (!said.empty()) said = ": " + printable(said);
  switch (response.status) {
    case 401:
    case 403:
      throw Error(ErrorCode::kNotFound, url, ": the server wants an access token (HTTP ", response.status, said, "); set HF_TOKEN");
    case 404:
      throw Error(ErrorCode::kNotFound, url, ": there is no such thing (HTTP 404", said, ")");
    default:
      throw Error(ErrorCode::kDevice, url, ": the server answers HTTP ", response.status, said);
  }
}

bool is_busy(long status) { return status == 408 || status == 429 || status >= 500; }

/// 64 hexadecimal digits, in lower case; otherwise empty.
std::string as_sha256(std::string text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'F') c = static_cast<char>(c + 32);
    if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) return "";
  }
  return text.size() == 64 ? text : "";
}

/// Counts tries that brought nothing, and waits between them, longer each time.
class Patience {
 public:
  Patience(const DownloadLimits& limits, std::function<bool()> keep_going) : limits_(limits), keep_going_(std::move(keep_going)) {}
  void progressed() { failures_ = 0; }
  void failed(const std::string& url, const std::string& reason) {
    if (++failures_ >= limits_.tries) throw Error(ErrorCode::kDevice, url, ": ", reason, " (tried ", failures_, " times)");
    const int64_t wait_ms = static_cast<int64_t>(limits_.retry_wait_ms) << std::min(failures_ - 1, 6);
    for (int64_t waited = 0; waited < wait_ms; waited += 50) {
      if (!keep_going_()) throw Error(ErrorCode::kCancelled, "download: cancelled");
      std::this_thread::sleep_for(std::chrono::milliseconds(std::min<int64_t>(50, wait_ms - waited)));
    }
  }

 private:
  DownloadLimits limits_;
  std::function<bool()> keep_going_;
  int failures_ = 0;
};

/// The first and the last of "bytes 100-999/1000", or nothing.
std::optional<std::pair<uint64_t, uint64_t>> content_range(const std::string& text) {
  unsigned long long first = 0, last = 0, total = 0;
  int end = 0;
  if (std::sscanf(text.c_str(), "bytes %llu-%llu/%llu%n", &first, &last, &total, &end) != 3 || static_cast<size_t>(end) != text.size())
    return std::nullopt;
  return std::pair(uint64_t{first}, uint64_t{total});
}

/// One download with its part file and what is known about it.
class FileDownload {
 public:
  FileDownload(const Download& download, const std::string& path, const DownloadLimits& limits, const DownloadProgress& progress)
      : download_(download),
        path_(path),
        note_(path + ".part.from"),
        limits_(limits),
        progress_(progress),
        part_(path, PartFile::Open::kResume) {
    read_note();
    if (etag_.empty() || note_sha256_ != download.sha256 || (download.size > 0 && part_.size() > download.size)) part_.restart();
    if (!download.sha256.empty()) size_ = download.size;  // A part that is complete already only needs its checksum.
  }

  void run() {
    Patience patience(limits_, [this] { return keep_going(); });
    while (!complete()) {
      const uint64_t before = part_.size();
      std::string reason = "the connection ended early";
      try {
        const Response response = step();
        if (response.status == 416 && part_.size() > 0)
          part_.restart();  // Our part is longer than what the server has now.
        else if (is_busy(response.status))
          reason = "the server answers HTTP " + std::to_string(response.status);
        else if (response.status != 200 && response.status != 206)
          refuse_status(download_.url, response);
        else if (size_ == 0)
          size_ = part_.size(), ended_ = true;  // No length anywhere: the end of the body is the end of the file.
      } catch (const Interrupted& interrupted) {
        reason = interrupted.what();
      }
      if (part_.size() > before) patience.progressed();
      if (!complete()) patience.failed(download_.url, reason);
    }
    finish();
  }

 private:
  bool complete() const { return ended_ || (size_ > 0 && part_.size() == size_); }
  bool keep_going() const { return !progress_ || progress_(part_.size()); }

  void read_note() {
    std::error_code error;
    if (part_.size() == 0 || !fs::exists(note_, error)) return;
    const std::string text = read_text_file(note_, 4096);
    const size_t end = text.find('\n');
    if (end == std::string::npos || text.empty() || text.back() != '\n') return;
    etag_ = text.substr(0, end);
    note_sha256_ = text.substr(end + 1, text.size() - end - 2);
  }

  Response step() {
    bool started = false;
    const Request request{
        .url = download_.url, .token = download_.token, .first_byte = etag_.empty() ? 0 : part_.size(), .if_range = etag_};
    const auto body = [&](const Response& response, std::span<const std::byte> bytes) {
      if (!std::exchange(started, true)) begin(response);
      const uint64_t most = size_ > 0 ? size_ : kMostUnannounced;
      if (bytes.size() > most - part_.size())
        throw Error(ErrorCode::kCorruptFile, download_.url, ": the server sends more than the ", most, " bytes that the file has");
      part_.write(bytes);
    };
    const Response response = transfer(request, limits_, body, [this] { return keep_going(); });
    if (response.status == 200 && !started) part_.restart();  // An empty file.
    if (sha256_.empty()) sha256_ = as_sha256(response.linked_etag);
    return response;
  }

  /// The first bytes of an answer: do they belong after ours?
  void begin(const Response& response) {
    uint64_t total = 0;
    if (response.status == 206) {
      const auto range = content_range(response.header("content-range"));
      if (!range || range->first != part_.size())
        throw Error(ErrorCode::kDevice, download_.url, ": asked for bytes from ", part_.size(), ", the server sends ",
                    printable(response.header("content-range")));
      total = range->second;
    } else {
      part_.restart();  // The whole file: it changed, or the server knows no ranges.
      const std::string length = response.header("content-length");
      total = length.empty() ? 0 : std::strtoull(length.c_str(), nullptr, 10);
    }
    if (download_.size > 0 && total > 0 && total != download_.size)
      throw Error(ErrorCode::kCorruptFile, download_.url, ": the server sends ", total, " bytes, announced were ", download_.size);
    size_ = download_.size > 0 ? download_.size : total;
    if (total > 0) require_space(fs::path(path_).parent_path().string(), total - part_.size());
    etag_ = response.header("etag");
    if (etag_.rfind("W/", 0) == 0) etag_.clear();  // A weak one does not promise the same bytes.
    write_whole_file(note_, etag_ + "\n" + download_.sha256 + "\n");
  }

  void finish() {
    const std::string& expected = download_.sha256.empty() ? sha256_ : download_.sha256;
    const std::string found = part_.sha256();
    std::error_code ignored;
    fs::remove(note_, ignored);
    if (!expected.empty() && found != expected) {
      part_.discard();
      throw Error(ErrorCode::kCorruptFile, download_.url, ": SHA-256 is ", found, ", expected ", expected, "; the file was not kept");
    }
    part_.commit();
  }

  static constexpr uint64_t kMostUnannounced = uint64_t{64} << 20;  // A body without any length is no model.

  const Download& download_;
  std::string path_, note_;
  DownloadLimits limits_;
  const DownloadProgress& progress_;
  PartFile part_;
  std::string etag_, note_sha256_, sha256_;
  uint64_t size_ = 0;
  bool ended_ = false;
};

}  // namespace

std::string download_text(const std::string& url, const std::string& token, uint64_t limit, const DownloadLimits& limits,
                          const DownloadProgress& progress) {
  std::string text;
  const auto keep_going = [&] { return !progress || progress(text.size()); };
  const auto body = [&](const Response&, std::span<const std::byte> bytes) {
    if (bytes.size() > limit - text.size()) throw Error(ErrorCode::kDevice, url, ": the answer is longer than ", limit, " bytes");
    text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  };
  Patience patience(limits, keep_going);
  for (;;) {
    text.clear();
    try {
      const Response response = transfer({.url = url, .token = token, .first_byte = 0, .if_range = ""}, limits, body, keep_going);
      if (response.status == 200) return text;
      if (!is_busy(response.status)) refuse_status(url, response);
      patience.failed(url, "the server answers HTTP " + std::to_string(response.status));
    } catch (const Interrupted& interrupted) {
      patience.failed(url, interrupted.what());
    }
  }
}

void download_file(const Download& download, const std::string& path, const DownloadLimits& limits, const DownloadProgress& progress) {
  FileDownload(download, path, limits, progress).run();
}

}  // namespace minillm
