#include "options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    enum mode mode;
} MODES[] = {
    {"normal", MODE_NORMAL},
    {"silent", MODE_SILENT},
    {"noread", MODE_NOREAD},
    {"never", MODE_NEVER},
};

static int64_t milliseconds(const char *seconds) { return (int64_t)(atof(seconds) * 1000); }

static bool is_on(const char *value) { return strcmp(value, "1") == 0; }

static bool set_mode(struct options *options, const char *name)
{
    for (size_t i = 0; i < sizeof MODES / sizeof *MODES; i++) {
        if (strcmp(name, MODES[i].name) == 0) {
            options->mode = MODES[i].mode;
            return true;
        }
    }
    return false;
}

/* The value when `word` is `name=value`, else NULL. */
static const char *value_of(const char *word, const char *name)
{
    size_t length = strlen(name);
    return strncmp(word, name, length) == 0 && word[length] == '=' ? word + length + 1 : NULL;
}

static bool set_option(struct options *options, const char *word)
{
    const char *value;

    if ((value = value_of(word, "mode")))
        return set_mode(options, value);
    if ((value = value_of(word, "timeout")))
        options->timeout_ms = milliseconds(value);
    else if ((value = value_of(word, "noecho")))
        options->no_echo = is_on(value);
    else if ((value = value_of(word, "ignore_poweroff")))
        options->ignore_poweroff = is_on(value);
    else if ((value = value_of(word, "flood")))
        options->flood = atol(value);
    else if ((value = value_of(word, "loop")))
        options->loop = is_on(value);
    else if ((value = value_of(word, "panic_after")))
        options->panic_after_ms = milliseconds(value);
    else if ((value = value_of(word, "reboot")))
        options->reboot = is_on(value);
    else
        return false;
    return true;
}

struct options options_parse(int count, char *const words[])
{
    struct options options = {.mode = MODE_NORMAL, .timeout_ms = 3000, .panic_after_ms = -1};

    for (int i = 0; i < count; i++)
        if (!set_option(&options, words[i]))
            printf("vchannel: unknown parameter %s\n", words[i]);
    return options;
}
