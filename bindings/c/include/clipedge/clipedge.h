/* libclipedge: CLIP on devices, from C. Loads the same bundles as the Python package and gives the same numbers.

Ownership
  - A handle (clipedge_model, clipedge_bank, clipedge_index, clipedge_stream) belongs to whoever opened it, who frees it
    once with its _free function. NULL may be freed. Banks and indexes do not need the model any more once they are
    open; a stream needs its model and its bank until it is freed.
  - What goes in (paths, texts, images, embeddings) stays the caller's; nothing of it is kept when a call returns.
  - Numbers come out into buffers that the caller owns. `capacity` counts the elements that such a buffer holds; where
    it is too small the call fails with CLIPEDGE_USAGE and nothing is written.
  - A `const char *` that comes out belongs to the handle that it was asked of, and lives as long as that handle. That
    of clipedge_last_error belongs to the thread, and lives until the thread's next call.
  - Texts are UTF-8 and end with a zero byte. Paths are the system's bytes.

Errors
  - Every call that can fail returns a status, which has to be looked at; CLIPEDGE_OK is 0. clipedge_last_error() then
    says, for the calling thread, what was expected, what was found and what to do.
  - A call that fails sets the handle it should have made to NULL. What stands in buffers is then not to be used.
  - Nothing is thrown, printed, or ended by exit or abort across this interface. Nothing falls back: what was asked for
    runs, or the call fails. What this build cannot do fails with CLIPEDGE_UNSUPPORTED.

Threads
  - A loaded model is immutable: any number of threads may encode with it at once. The text tower opens at its first
    use, behind a lock. Banks and indexes are immutable, too; a stream takes calls from any thread. To free a handle
    while another thread uses it is an error.

Structs
  - They begin with `size`, which the caller sets to the sizeof that it was compiled with; the macros do that. A shorter
    struct of an older client has the defaults (those of the macro) in what it lacks; one of a newer client is taken
    when what is not known here is zero.

A camera's frames to events: stream.h. A picture to a label:

    clipedge_model *model = NULL;
    clipedge_bank *bank = NULL;
    clipedge_image image = CLIPEDGE_IMAGE;
    image.planes[0] = pixels, image.strides[0] = 3 * 640, image.width = 640, image.height = 480;
    image.format = CLIPEDGE_RGB8;
    float probabilities[120];
    if (clipedge_model_load("aisle-int8", NULL, &model) || clipedge_bank_open(model, "default", &bank) ||
        clipedge_classify_images(model, bank, &image, 1, probabilities, 120))
        fprintf(stderr, "%s\n", clipedge_last_error());
    clipedge_bank_free(bank), clipedge_model_free(model);
*/
#ifndef CLIPEDGE_CLIPEDGE_H
#define CLIPEDGE_CLIPEDGE_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define CLIPEDGE_API __attribute__((visibility("default")))
#define CLIPEDGE_MUST_USE __attribute__((warn_unused_result))
#else
#define CLIPEDGE_API
#define CLIPEDGE_MUST_USE
#endif

/* The version of this header. A library of the same major number and the same or a larger minor number serves it. */
#define CLIPEDGE_VERSION_MAJOR 0
#define CLIPEDGE_VERSION_MINOR 1
#define CLIPEDGE_VERSION_PATCH 0

#ifdef __cplusplus
extern "C" {
#endif

typedef enum clipedge_status {
    CLIPEDGE_OK = 0,
    CLIPEDGE_USAGE = 1,       /* the call was wrong: a path, a name, an option, a capacity */
    CLIPEDGE_IMAGE_ERROR = 2, /* an image's size, format, planes or strides cannot be right */
    CLIPEDGE_BUNDLE = 3,      /* a bundle, prompt bank or index is missing parts, damaged, altered or too new */
    CLIPEDGE_SPACE = 4,       /* two things that belong to different models were put together */
    CLIPEDGE_BACKEND = 5,     /* the engine is not there, refuses the graph, or gives wrong numbers */
    CLIPEDGE_UNSUPPORTED = 6, /* right in itself, but this build cannot do it */
    CLIPEDGE_NO_MEMORY = 7,
    CLIPEDGE_INTERNAL = 8     /* an error of this library: please report it */
} clipedge_status;

/* Engines, for clipedge_options.provider. This build runs "cpu", and "cuda" where the ONNX Runtime it finds was built
   with it (never run so far). "tensorrt" is refused: its engines are Python's so far (clipedge build). */
typedef enum clipedge_provider {
    CLIPEDGE_PROVIDER_CPU = 0,
    CLIPEDGE_PROVIDER_CUDA = 1,
    CLIPEDGE_PROVIDER_TENSORRT = 2
} clipedge_provider;

/* Memory layouts, for clipedge_image.format. With w2 = (width + 1) / 2 and h2 = (height + 1) / 2, the rows are:
     rgb8 bgr8    one plane, height rows of 3 width bytes
     rgba8 bgra8  one plane, height rows of 4 width bytes; the fourth byte is padding and ignored
     gray8        one plane, height rows of width bytes
     nv12         Y: height rows of width bytes; UV interleaved: h2 rows of 2 w2 bytes
     i420         Y: height rows of width bytes; U: h2 rows of w2 bytes; V: the same
     yuyv uyvy    one plane, height rows of 4 w2 bytes
   Frames lie in the processor's memory. Frames in a GPU's memory (NVMM, DMA-BUF) have to be mapped or copied first. */
typedef enum clipedge_format {
    CLIPEDGE_RGB8 = 1,
    CLIPEDGE_BGR8 = 2, /* OpenCV's */
    CLIPEDGE_RGBA8 = 3,
    CLIPEDGE_BGRA8 = 4,
    CLIPEDGE_GRAY8 = 5,
    CLIPEDGE_NV12 = 6,
    CLIPEDGE_I420 = 7,
    CLIPEDGE_YUYV = 8,
    CLIPEDGE_UYVY = 9
} clipedge_format;

/* For clipedge_image.matrix; it matters for YUV only. 0 means BT.601, which webcams have; HD video is mostly BT.709. */
typedef enum clipedge_matrix { CLIPEDGE_BT601 = 1, CLIPEDGE_BT709 = 2 } clipedge_matrix;

/* For clipedge_image.range; it matters for YUV only. 0 means limited. */
typedef enum clipedge_range { CLIPEDGE_LIMITED = 1, CLIPEDGE_FULL = 2 } clipedge_range;

typedef struct clipedge_model clipedge_model; /* a bundle with its engines */
typedef struct clipedge_bank clipedge_bank;   /* label embeddings: what a classifier compares images with */
typedef struct clipedge_index clipedge_index; /* embeddings under keys, to be searched */

/* How a model is loaded. All zero, or NULL in its place: the CPU, one thread a core, the variant that suits it. */
typedef struct clipedge_options {
    size_t size;
    int32_t provider;         /* a clipedge_provider */
    int32_t device;           /* which GPU, from 0 */
    int32_t threads;          /* CPU threads; 0: one for each core */
    int32_t sleeping;         /* 0: the engine's threads wait for the next call busily, and answer a little sooner.
                                 1: they sleep, and the cores are free and cool between frames */
    const char *variant;      /* such as "int8.x86", or NULL */
    const char *engine_cache; /* folder of engines built for this GPU, or NULL; for CLIPEDGE_PROVIDER_TENSORRT only */
} clipedge_options;
#define CLIPEDGE_OPTIONS {sizeof(clipedge_options), CLIPEDGE_PROVIDER_CPU, 0, 0, 0, NULL, NULL}

/* One picture in a camera's memory layout. `strides` are the bytes from one row to the next in each plane, which may be
   more than a row needs. The memory has to hold (rows - 1) * stride + row bytes: that cannot be checked here. */
typedef struct clipedge_image {
    size_t size;
    const uint8_t *planes[3];
    size_t strides[3];
    int32_t width;
    int32_t height;
    int32_t format; /* a clipedge_format */
    int32_t matrix; /* a clipedge_matrix, or 0 */
    int32_t range;  /* a clipedge_range, or 0 */
    int32_t reserved; /* 0 */
} clipedge_image;
#define CLIPEDGE_IMAGE {sizeof(clipedge_image), {NULL, NULL, NULL}, {0, 0, 0}, 0, 0, 0, 0, 0, 0}

typedef struct clipedge_model_info {
    size_t size;
    int32_t embedding_dim;
    int32_t image_width;       /* pixels that the image tower takes; images of this size are not resized */
    int32_t image_height;
    int32_t context_length;    /* tokens of a text; 0: the bundle has no text tower */
    const char *variant;       /* of the image tower: "int8.x86" */
    const char *space_id;      /* of the embedding space: what has another one cannot be compared */
    const char *source_model;
    const char *engine;        /* "onnxruntime 1.32.0" */
} clipedge_model_info;
#define CLIPEDGE_MODEL_INFO {sizeof(clipedge_model_info), 0, 0, 0, 0, NULL, NULL, NULL, NULL}

typedef struct clipedge_bank_info {
    size_t size;
    int32_t embedding_dim;
    int32_t labels;
    int32_t negatives;        /* what "none of these" looks like */
    int32_t sigmoid;          /* 1: each label has its probability by itself; 0: they sum to 1 */
    int32_t multi_label;      /* 1: its fitted rule is for several labels to a picture */
    int32_t reserved;
    const char *rule_variant; /* the image tower that its decision rule was fitted with, or NULL: no rule */
    const char *space_id;
} clipedge_bank_info;
#define CLIPEDGE_BANK_INFO {sizeof(clipedge_bank_info), 0, 0, 0, 0, 0, 0, NULL, NULL}

typedef struct clipedge_index_info {
    size_t size;
    int32_t embedding_dim;
    int32_t reserved;
    int64_t entries;
    const char *space_id;
} clipedge_index_info;
#define CLIPEDGE_INDEX_INFO {sizeof(clipedge_index_info), 0, 0, 0, NULL}

/* ---- this library --------------------------------------------------------------------------------------------- */

/* The library's version: major * 65536 + minor * 256 + patch. */
CLIPEDGE_API uint32_t clipedge_version(void);

/* What went wrong in this thread's last call that failed; "" before any did. Never NULL. */
CLIPEDGE_API const char *clipedge_last_error(void);

/* ---- models --------------------------------------------------------------------------------------------------- */

/* Open a bundle, check its files against their hashes, and test its image engine on a golden input. `options` may be
   NULL. */
CLIPEDGE_API CLIPEDGE_MUST_USE clipedge_status clipedge_model_load(const char *folder, const clipedge_options *options,
                                                                   clipedge_model **model);
CLIPEDGE_API void clipedge_model_free(clipedge_model *model);
CLIPEDGE_API CLIPEDGE_MUST_USE clipedge_status clipedge_model_describe(const clipedge_model *model,
                                                                       clipedge_model_info *info);

/* Embed `count` images: count * embedding_dim floats, each row of length 1. The elements of `images` are images[0].size
   bytes apart. */
CLIPEDGE_API CLIPEDGE_MUST_USE clipedge_status clipedge_encode_images(const clipedge_model *model,
                                                                      const clipedge_image *images, size_t count,
                                                                      float *embeddings, size_t capacity);

/* Embed `count` texts: the same space. A text of more tokens than the model reads loses its end; clipedge_tokenize
   tells. */
CLIPEDGE_API CLIPEDGE_MUST_USE clipedge_status clipedge_encode_texts(const clipedge_model *model,
                                                                     const char *const *texts, size_t count,
                                                                     float *embeddings, size_t capacity);

/* The context_length token ids of a text. `lost`, unless NULL, is how many of its tokens were cut off. */
CLIPEDGE_API CLIPEDGE_MUST_USE clipedge_status clipedge_tokenize(const clipedge_model *model, const char *text,
                                                                 int64_t *ids, size_t capacity, int64_t *lost);

/* ---- classification ------------------------------------------------------------------------------------------- */

/* The prompt bank prompts/NAME.safetensors of the model's bundle; the one at a path. */
CLIPEDGE_API CLIPEDGE_MUST_USE clipedge_status clipedge_bank_open(const clipedge_model *model, const char *name,
                                                                  clipedge_bank **bank);
CLIPEDGE_API CLIPEDGE_MUST_USE clipedge_status clipedge_bank_load(const clipedge_model *model, const char *path,
                                                                  clipedge_bank **bank);
CLIPEDGE_API void clipedge_bank_free(clipedge_bank *bank);
CLIPEDGE_API CLIPEDGE_MUST_USE clipedge_status clipedge_bank_describe(const clipedge_bank *bank,
                                                                      clipedge_bank_info *info);
CLIPEDGE_API CLIPEDGE_MUST_USE clipedge_status clipedge_bank_label(const clipedge_bank *bank, size_t number,
                                                                   const char **label);

/* Probabilities of `count` image embeddings: count * labels floats, row after row. */
CLIPEDGE_API CLIPEDGE_MUST_USE clipedge_status clipedge_classify(const clipedge_bank *bank, const float *embeddings,
                                                                 size_t count, float *probabilities, size_t capacity);

/* The same of images. */
CLIPEDGE_API CLIPEDGE_MUST_USE clipedge_status clipedge_classify_images(const clipedge_model *model,
                                                                        const clipedge_bank *bank,
                                                                        const clipedge_image *images, size_t count,
                                                                        float *probabilities, size_t capacity);

/* Which labels are the answer, count * labels bytes of 1 or 0, by the bank's rule, or by its negatives where none was
   fitted. With multi_label 0 at most one a picture, and none where it is "none of these"; with 1 every label is decided
   by itself. `probabilities`, unless NULL, are those that the rule decides by. `capacity` is that of both buffers.
   Fails with CLIPEDGE_USAGE for a bank that has no reason ever to say none, and for a rule of the other kind. */
CLIPEDGE_API CLIPEDGE_MUST_USE clipedge_status clipedge_decide(const clipedge_bank *bank, const float *embeddings,
                                                               size_t count, int32_t multi_label, uint8_t *accepted,
                                                               float *probabilities, size_t capacity);

/* ---- retrieval ------------------------------------------------------------------------------------------------ */

/* Open an index of the model's space as its folder is at this moment. A graph that it may have is not used. */
CLIPEDGE_API CLIPEDGE_MUST_USE clipedge_status clipedge_index_open(const clipedge_model *model, const char *folder,
                                                                   clipedge_index **index);
CLIPEDGE_API void clipedge_index_free(clipedge_index *index);
CLIPEDGE_API CLIPEDGE_MUST_USE clipedge_status clipedge_index_describe(const clipedge_index *index,
                                                                       clipedge_index_info *info);

/* The k entries of highest cosine for one query of embedding_dim floats, best first, exactly; all if there are fewer.
   `rows` name them, `scores` are the cosines; both hold k. `found` is how many there are. */
CLIPEDGE_API CLIPEDGE_MUST_USE clipedge_status clipedge_index_search(const clipedge_index *index, const float *query,
                                                                     size_t k, int64_t *rows, float *scores,
                                                                     size_t *found);

/* The key of a row, and its metadata as JSON. A path that is no UTF-8 comes as its own bytes. */
CLIPEDGE_API CLIPEDGE_MUST_USE clipedge_status clipedge_index_key(const clipedge_index *index, int64_t row,
                                                                  const char **key);
CLIPEDGE_API CLIPEDGE_MUST_USE clipedge_status clipedge_index_metadata(const clipedge_index *index, int64_t row,
                                                                       const char **metadata);

#ifdef __cplusplus
}
#endif

#endif
