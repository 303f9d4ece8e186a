/* Decompresses the LZ4 format that Linux images use (its legacy format: blocks of up to 8 MiB), from standard input to
 * standard output: Debian has the lz4 program in a package that nothing else here needs.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { BLOCK_SIZE = 8 << 20, COMPRESSED_SIZE = BLOCK_SIZE + BLOCK_SIZE / 255 + 16, SHORTEST_MATCH = 4 };

static uint8_t compressed[COMPRESSED_SIZE], block[BLOCK_SIZE];

/* A length is its four bits of the token; 15 means that bytes are added, up to one below 255. */
static size_t length(size_t nibble, const uint8_t **in, const uint8_t *end)
{
    size_t sum = nibble;

    if (nibble == 15)
        while (*in < end) {
            sum += **in;
            if (*(*in)++ != 255)
                break;
        }
    return sum;
}

/* Returns the number of bytes in `block`, 0 for a broken one. */
static size_t decompress(const uint8_t *in, const uint8_t *end)
{
    size_t filled = 0;

    while (in < end) {
        uint8_t token = *in++;
        size_t literals = length(token >> 4, &in, end), match, distance;

        if (literals > (size_t)(end - in) || literals > BLOCK_SIZE - filled)
            return 0;
        memcpy(block + filled, in, literals);
        in += literals;
        filled += literals;
        if (in == end)
            return filled; /* the last sequence has no match */
        if (end - in < 2)
            return 0;
        distance = in[0] | in[1] << 8;
        in += 2;
        match = length(token & 15, &in, end) + SHORTEST_MATCH;
        if (distance == 0 || distance > filled || match > BLOCK_SIZE - filled)
            return 0;
        for (; match > 0; match--, filled++) /* byte by byte: it may overlap itself */
            block[filled] = block[filled - distance];
    }
    return 0;
}

static bool read_number(uint32_t *number)
{
    uint8_t bytes[4];
    bool whole = fread(bytes, 1, 4, stdin) == 4;

    *number = bytes[0] | bytes[1] << 8 | bytes[2] << 16 | (uint32_t)bytes[3] << 24;
    return whole;
}

int main(void)
{
    uint32_t magic, size;

    if (!read_number(&magic) || magic != 0x184c2102)
        return 1;
    while (read_number(&size)) {
        size_t count;

        if (size > sizeof compressed || fread(compressed, 1, size, stdin) != size)
            return 1;
        count = decompress(compressed, compressed + size);
        if (count == 0 || fwrite(block, 1, count, stdout) != count)
            return 1;
    }
    return fflush(stdout) != 0;
}
