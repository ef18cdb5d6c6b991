# Accuracies of random samples by R's package survey: make_survey.py runs this.
# The weights are calibrated to the area of each stratum where pixels differ in size (a ratio within strata).
suppressMessages({library(survey); library(jsonlite)})
files <- commandArgs(trailingOnly = TRUE)
ratio <- function(design, top, bottom) {
  if (sum(bottom) == 0) return(c(NA, NA))
  found <- svyratio(~top, ~bottom, update(design, top = top, bottom = bottom))
  c(coef(found), SE(found))
}
figures <- function(one) {
  points <- data.frame(stratum = factor(one$stratum), size = one$size, N = one$pixels[one$stratum + 1])
  design <- svydesign(ids = ~1, strata = ~stratum, fpc = ~N, data = points)
  totals <- one$area
  formula <- if (length(totals) == 1) ~size - 1 else ~stratum:size - 1
  names(totals) <- colnames(model.matrix(formula, points))
  if (any(one$size != 1) || any(one$area != one$pixels))
    design <- calibrate(design, formula, totals, calfun = "linear", variance = rep(1, length(totals)))
  here <- as.numeric(one$within); size <- one$size
  same <- as.numeric(one$mapped == one$reference)
  found <- list(
    overall = ratio(design, size * same, size), part = ratio(design, size * same * here, size * here),
    users = NULL, producers = NULL, f1 = NULL, iou = NULL, share = NULL
  )
  for (k in seq_len(one$classes) - 1) {
    m <- as.numeric(one$mapped == k); r <- as.numeric(one$reference == k)
    found$users <- rbind(found$users, ratio(design, size * m * r, size * m))
    found$producers <- rbind(found$producers, ratio(design, size * m * r, size * r))
    found$f1 <- rbind(found$f1, ratio(design, size * 2 * m * r, size * (m + r)))
    found$iou <- rbind(found$iou, ratio(design, size * m * r, size * pmax(m, r)))
    found$share <- rbind(found$share, ratio(design, size * r, size))
  }
  found
}
designs <- fromJSON(files[1], simplifyDataFrame = FALSE)
results <- lapply(designs, figures)
about <- paste("R", getRversion(), "survey", packageVersion("survey"))
write(toJSON(list(by = about, results = results), digits = NA, na = "null", auto_unbox = TRUE), files[2])
