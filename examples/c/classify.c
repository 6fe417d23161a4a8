/* classify.c - labels of images: classify MODEL.coc IMAGE.ppm [IMAGE.ppm ...]
 *
 * Takes binary PNM images of the model's size and prints a line for each: label, exit taken, confidence,
 * and the time that coc_run took. Of several images also the mean. Build: see README.md beside this file.
 */
#include "coc.h"
#include "pnm.h"

#include <time.h>

static double microseconds(void) {
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static int complain(const char *where, const char *what) {
    fprintf(stderr, "%s: %s\n", where, what);
    return 1;
}

/* Run one image and print its line; *spent: microseconds of coc_run. `logits` has room for info->classes. */
static int classify(coc_session *session, const coc_model_info *info, const char *path, float *logits,
                    double *spent) {
    image input;
    const char *wrong = read_pnm(path, &input);
    if (wrong == NULL && (input.channels != info->channels || input.height != info->height ||
                          input.width != info->width))
        wrong = "not of the size or the channels that the model takes";
    if (wrong != NULL) {
        free(input.pixels);
        return complain(path, wrong);
    }
    int64_t label, taken;
    float confidence;
    const coc_result result = {.logits = logits, .label = &label, .exit = &taken, .confidence = &confidence};
    const double begin = microseconds();
    const coc_status status = coc_run(session, input.pixels, 1, COC_INTERLEAVED, &result);
    *spent = microseconds() - begin;
    free(input.pixels);
    if (status != COC_OK)
        return complain(path, coc_strerror(status));
    printf("%s:", path);
    if (info->task == COC_REGRESSION) /* the logits are the numbers asked for, there is no label */
        for (uint32_t i = 0; i < info->classes; i++)
            printf(" %.4f,", (double)logits[i]);
    else
        printf(" label %lld,", (long long)label);
    printf(" exit %lld, confidence %.4f, %.1f us\n", (long long)taken, (double)confidence, *spent);
    return 0;
}

static int classify_all(coc_session *session, const coc_model_info *info, char **paths, int count) {
    float *logits = malloc(info->classes * sizeof *logits);
    if (logits == NULL)
        return complain("classify", "out of memory");
    int failed = 0;
    double spent = 0, sum = 0;
    for (int i = 0; i < count && !failed; i++) {
        failed = classify(session, info, paths[i], logits, &spent);
        sum += spent;
    }
    free(logits);
    if (!failed && count > 1)
        printf("%d images, %.2f us each (%s)\n", count, sum / count, coc_session_cpu(session));
    return failed;
}

int main(int argc, char **argv) {
    if (argc < 3)
        return complain("usage", "classify MODEL.coc IMAGE.ppm [IMAGE.ppm ...]");
    coc_model *model;
    coc_session *session = NULL;
    coc_model_info info;
    coc_status status = coc_model_open(argv[1], NULL, &model);
    if (status == COC_OK)
        status = coc_model_inspect(model, &info);
    if (status == COC_OK)
        status = coc_session_create(model, NULL, &session);
    const int failed = status == COC_OK ? classify_all(session, &info, argv + 2, argc - 2)
                                        : complain(argv[1], coc_strerror(status));
    coc_session_free(session);
    coc_model_free(model);
    return failed;
}
