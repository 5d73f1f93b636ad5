/** Guards against answers of another shape than expected. Pure. */

/** @param {any} value @returns {Record<string, any>} */
export const wellFormed = (value) => (typeof value === 'object' && value !== null && !Array.isArray(value) ? value : {});
